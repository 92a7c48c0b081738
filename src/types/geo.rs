//! Places on Earth as scores of a sorted set, and where to look for those near a place.
//!
//! A place is the cell of a grid of 2^26 by 2^26 over longitudes and Web Mercator's latitudes, its two numbers
//! interleaved to 52 bits, which a score holds exactly. Cells of coarser grids are ranges of such scores, so an area is
//! searched by looking through nine neighbouring cells and leaving out what is too far away.
//!
//! What must stay true: every number is computed by the same operations in the same order as in Redis, since replies
//! are compared to the last digit.

use std::f64::consts::PI;
use std::ops::Range;

/// The bounds of longitudes, in degrees.
pub const LONGITUDES: (f64, f64) = (-180.0, 180.0);
/// The bounds of latitudes: those of Web Mercator, which is square.
pub const LATITUDES: (f64, f64) = (-85.051_128_78, 85.051_128_78);
/// The latitudes of the common geohash.
const GEOHASH_LATITUDES: (f64, f64) = (-90.0, 90.0);

/// Bits of longitude, and of latitude, in a score.
const FINEST: u32 = 26;
/// The mean radius of Earth in metres.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
/// Half of Earth's girth in Web Mercator, in metres.
const MERCATOR_MAX_M: f64 = 20_037_726.37;
const RADIANS_PER_DEGREE: f64 = PI / 180.0;
const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";

/// A place, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// East of Greenwich; negative in the west.
    pub longitude: f64,
    /// North of the equator; negative in the south.
    pub latitude: f64,
}

/// A cell of the grid of 2^`step` by 2^`step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    east: u32,
    north: u32,
    step: u32,
}

/// What a cell covers: bounds of longitude and latitude.
struct Bounds {
    longitude: (f64, f64),
    latitude: (f64, f64),
}

/// Puts zeros between the bits of a number.
fn spread(bits: u32) -> u64 {
    let mut bits = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// Every other bit of a number, from the lowest on.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

impl Cell {
    /// The cell that a place is in.
    fn of(place: Place, step: u32, latitudes: (f64, f64)) -> Cell {
        let number = |degrees: f64, (min, max): (f64, f64)| {
            let part = (degrees - min) / (max - min);
            // At the very end it is one more than there are cells.
            (part * (1u64 << step) as f64) as u32
        };
        Cell { east: number(place.longitude, LONGITUDES), north: number(place.latitude, latitudes), step }
    }

    fn from_bits(bits: u64, step: u32) -> Cell {
        Cell { east: gather(bits >> 1), north: gather(bits), step }
    }

    fn bits(self) -> u64 {
        spread(self.north) | spread(self.east) << 1
    }

    fn bounds(self) -> Bounds {
        let side = |number: u32, (min, max): (f64, f64)| {
            let (scale, cells) = (max - min, (1u64 << self.step) as f64);
            let number = f64::from(number);
            (min + (number / cells) * scale, min + ((number + 1.0) / cells) * scale)
        };
        Bounds { longitude: side(self.east, LONGITUDES), latitude: side(self.north, LATITUDES) }
    }

    /// The cell so many steps to the east and to the north, around the edges of the grid.
    fn moved(self, east: i32, north: i32) -> Cell {
        let by = |number: u32, by: i32| match by {
            0 => number,
            by => number.wrapping_add_signed(by) & ((1 << self.step) - 1),
        };
        Cell { east: by(self.east, east), north: by(self.north, north), ..self }
    }

    /// The scores of the places in it.
    fn scores(self) -> Range<f64> {
        let shift = 2 * (FINEST - self.step);
        ((self.bits() << shift) as f64)..(((self.bits() + 1) << shift) as f64)
    }
}

/// The bits of a score as a processor of the usual kind converts it: scores that are no places are none, but lead
/// somewhere.
fn bits_of(score: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    let signed = |score: f64| if (-HALF..HALF).contains(&score) { score as i64 } else { i64::MIN };
    if score < HALF { signed(score) as u64 } else { signed(score - HALF) as u64 ^ 1 << 63 }
}

impl Place {
    /// Whether it is within the bounds of longitude and latitude.
    pub fn is_valid(self) -> bool {
        (LONGITUDES.0..=LONGITUDES.1).contains(&self.longitude) && (LATITUDES.0..=LATITUDES.1).contains(&self.latitude)
    }

    /// The score that stands for it.
    pub fn score(self) -> f64 {
        Cell::of(self, FINEST, LATITUDES).bits() as f64
    }

    /// The place that a score stands for: the middle of its cell.
    pub fn of_score(score: f64) -> Place {
        let bounds = Cell::from_bits(bits_of(score), FINEST).bounds();
        let middle = |(min, max): (f64, f64), (least, most): (f64, f64)| {
            let middle = (min + max) / 2.0;
            if middle > most {
                most
            } else if middle < least {
                least
            } else {
                middle
            }
        };
        Place { longitude: middle(bounds.longitude, LONGITUDES), latitude: middle(bounds.latitude, LATITUDES) }
    }

    /// Its common geohash of eleven letters, of which the last tells nothing.
    pub fn geohash(self) -> [u8; 11] {
        let bits = Cell::of(self, FINEST, GEOHASH_LATITUDES).bits();
        std::array::from_fn(|i| match i {
            10 => ALPHABET[0],
            i => ALPHABET[(bits >> (52 - 5 * (i + 1)) & 31) as usize],
        })
    }

    /// The distance to another place in metres, by the haversine formula.
    pub fn distance(self, other: Place) -> f64 {
        let (from, to) = (self.longitude * RADIANS_PER_DEGREE, other.longitude * RADIANS_PER_DEGREE);
        let v = ((to - from) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance(self.latitude, other.latitude);
        }
        let (from, to) = (self.latitude * RADIANS_PER_DEGREE, other.latitude * RADIANS_PER_DEGREE);
        let u = ((to - from) / 2.0).sin();
        let a = u * u + from.cos() * to.cos() * v * v;
        2.0 * EARTH_RADIUS_M * a.sqrt().asin()
    }
}

/// The distance of two places on one meridian, in metres.
fn latitude_distance(one: f64, other: f64) -> f64 {
    EARTH_RADIUS_M * (other * RADIANS_PER_DEGREE - one * RADIANS_PER_DEGREE).abs()
}

/// The form of an area around a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// All that is so near.
    Circle {
        /// In units.
        radius: f64,
    },
    /// Upright, with the place in the middle.
    Box {
        /// From west to east, in units.
        width: f64,
        /// From south to north, in units.
        height: f64,
    },
}

/// An area around a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Its middle.
    pub center: Place,
    /// Its form and size.
    pub shape: Shape,
    /// How many metres a unit is.
    pub unit_m: f64,
}

impl Area {
    /// How far a place is from the middle, in metres, if it is in the area.
    pub fn distance(&self, place: Place) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => {
                let distance = self.center.distance(place);
                (distance <= radius * self.unit_m).then_some(distance)
            }
            Shape::Box { width, height } => {
                let (width, height) = (width * self.unit_m, height * self.unit_m);
                if latitude_distance(place.latitude, self.center.latitude) > height / 2.0 {
                    return None;
                }
                let level = Place { latitude: place.latitude, ..self.center };
                if place.distance(level) > width / 2.0 {
                    return None;
                }
                Some(self.center.distance(place))
            }
        }
    }

    /// The bounds of longitude and latitude that it lies in.
    fn bounds(&self) -> Bounds {
        let (width, height) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let (width, height) = (self.unit_m * width, self.unit_m * height);
        let Place { longitude, latitude } = self.center;
        let north = height / EARTH_RADIUS_M / RADIANS_PER_DEGREE;
        // It reaches furthest to the east and west where the circles of latitude are shortest: away from the equator.
        let shortest = if latitude < 0.0 { latitude - north } else { latitude + north };
        let east = width / EARTH_RADIUS_M / (shortest * RADIANS_PER_DEGREE).cos() / RADIANS_PER_DEGREE;
        Bounds { longitude: (longitude - east, longitude + east), latitude: (latitude - north, latitude + north) }
    }

    /// How fine a grid may be for three by three of its cells to cover the area, most often.
    fn step(&self) -> u32 {
        let mut range = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
        };
        range *= self.unit_m;
        if range == 0.0 {
            return FINEST;
        }
        let mut step = 1i32;
        while range < MERCATOR_MAX_M {
            range *= 2.0;
            step += 1;
        }
        step -= 2;
        // Towards the poles cells are narrower.
        let latitude = self.center.latitude.abs();
        step -= i32::from(latitude > 66.0) + i32::from(latitude > 80.0);
        step.clamp(1, FINEST as i32) as u32
    }

    /// The ranges of scores that hold all places of the area, among others, in the order in which Redis looks
    /// through them.
    pub fn scores(&self) -> Vec<Range<f64>> {
        let bounds = self.bounds();
        let mut cell = Cell::of(self.center, self.step(), LATITUDES);
        let reaches = |cell: Cell| {
            cell.moved(0, 1).bounds().latitude.1 >= bounds.latitude.1
                && cell.moved(0, -1).bounds().latitude.0 <= bounds.latitude.0
                && cell.moved(1, 0).bounds().longitude.1 >= bounds.longitude.1
                && cell.moved(-1, 0).bounds().longitude.0 <= bounds.longitude.0
        };
        if cell.step > 1 && !reaches(cell) {
            cell = Cell::of(self.center, cell.step - 1, LATITUDES);
        }
        let middle = cell.bounds();
        // Sides to which the area does not reach beyond the cell in the middle.
        let left_out = |east: i32, north: i32| {
            cell.step >= 2
                && (north < 0 && middle.latitude.0 < bounds.latitude.0
                    || north > 0 && middle.latitude.1 > bounds.latitude.1
                    || east < 0 && middle.longitude.0 < bounds.longitude.0
                    || east > 0 && middle.longitude.1 > bounds.longitude.1)
        };
        let around = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let mut cells = vec![cell];
        for (east, north) in around {
            let next = cell.moved(east, north);
            // In the coarsest grid both neighbours of a cell are the same one.
            if !left_out(east, north) && (cells.len() == 1 || cells.last() != Some(&next)) {
                cells.push(next);
            }
        }
        cells.into_iter().map(Cell::scores).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    const PALERMO: Place = Place { longitude: 13.361389, latitude: 38.115556 };
    const CATANIA: Place = Place { longitude: 15.087269, latitude: 37.502669 };

    #[test]
    fn known_places_have_known_scores_hashes_and_distances() {
        assert_eq!((PALERMO.score(), CATANIA.score()), (3_479_099_956_230_698.0, 3_479_447_370_796_909.0));
        assert_eq!(&PALERMO.geohash(), b"sqc8b49rny0");
        let (palermo, catania) = (Place::of_score(PALERMO.score()), Place::of_score(CATANIA.score()));
        assert_eq!(palermo, Place { longitude: 13.361389338970184, latitude: 38.1155563954963 });
        assert_eq!(format!("{:.4}", palermo.distance(catania)), "166274.1516");
        assert_eq!(palermo.distance(palermo), 0.0);
    }

    #[test]
    fn scores_that_are_no_places_lead_to_some() {
        for score in [-1.0, 1e300, f64::INFINITY, f64::NEG_INFINITY, -0.5, 1e19, 4.6e15] {
            assert!(Place::of_score(score).is_valid(), "{score}");
        }
    }

    fn place() -> impl Strategy<Value = Place> {
        (LONGITUDES.0..LONGITUDES.1, LATITUDES.0..LATITUDES.1)
            .prop_map(|(longitude, latitude)| Place { longitude, latitude })
    }

    proptest! {
        #[test]
        fn a_place_is_near_where_its_score_leads(place in place()) {
            let found = Place::of_score(place.score());
            prop_assert!((found.longitude - place.longitude).abs() < 5e-6);
            prop_assert!((found.latitude - place.latitude).abs() < 5e-6);
        }

        #[test]
        fn bits_come_apart_as_they_were_put_together(east: u32, north: u32) {
            let cell = Cell { east, north, step: FINEST };
            prop_assert_eq!(Cell::from_bits(cell.bits(), FINEST), cell);
            for bit in 0..32 {
                prop_assert_eq!(cell.bits() >> (2 * bit) & 1, u64::from(north >> bit & 1));
            }
        }

        #[test]
        fn whatever_is_in_an_area_has_a_score_in_its_ranges(
            center in place(), radius in 0.0..3e6f64, angle in 0.0..TAU, part in 0.0..1.0f64,
        ) {
            // Redis misses places beyond the date line and near the poles, and so do we.
            prop_assume!(center.longitude.abs() < 100.0 && center.latitude.abs() < 50.0);
            let degrees = part * radius / 111_000.0;
            let near = Place {
                longitude: center.longitude + degrees * angle.cos(),
                latitude: center.latitude + degrees * angle.sin(),
            };
            prop_assume!(near.is_valid());
            let area = Area { center, shape: Shape::Circle { radius }, unit_m: 1.0 };
            let near = Place::of_score(near.score());
            if area.distance(near).is_some() {
                let score = near.score();
                prop_assert!(area.scores().iter().any(|range| range.contains(&score)), "{:?}", area.scores());
            }
        }
    }
}
