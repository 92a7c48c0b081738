//! The picture of LOLWUT: a cut stone, lit by chance.
//!
//! The stone is a crown over a pointed pavilion. Lines from its culet and rings around it cut it into
//! facets, each of one shade, which a generator draws that is seeded with the arguments: the same
//! arguments give the same picture.

use crate::stdx::random::Random;

/// The width where none is asked for, in characters.
pub const WIDTH: usize = 48;
/// The height where none is asked for, in lines.
pub const HEIGHT: usize = 20;
/// The largest picture, in characters each way: a reply of a few kilobytes.
const LARGEST: (usize, usize) = (160, 80);
/// From dark to bright.
const SHADES: &[u8] = b".:-=+*#%@";
/// How many facets stand side by side.
const FACETS: usize = 8;
/// How much of the height the crown takes.
const CROWN: f64 = 0.3;

/// Draws a stone of about this size, its shades chosen by `words`; every line ends with a line feed.
pub fn draw<'a>(width: usize, height: usize, words: impl Iterator<Item = &'a [u8]>) -> String {
    let (width, height) = (width.clamp(8, LARGEST.0), height.clamp(4, LARGEST.1));
    let mut random = Random::seeded(seed(words));
    let mut shades = [[0u8; FACETS]; 4];
    shades.iter_mut().flatten().for_each(|shade| *shade = SHADES[random.below(SHADES.len())]);
    let mut picture = String::with_capacity((width + 1) * height);
    for row in 0..height {
        let y = (row as f64 + 0.5) / height as f64;
        let mut line = String::with_capacity(width);
        for column in 0..width {
            // From -1 on the left to 1 on the right.
            let x = (column as f64 + 0.5) / width as f64 * 2.0 - 1.0;
            line.push(facet(x, y).map_or(' ', |(ring, at)| char::from(shades[ring][at])));
        }
        picture.push_str(line.trim_end());
        picture.push('\n');
    }
    picture
}

/// The facet at a point of the picture, `None` outside the stone.
fn facet(x: f64, y: f64) -> Option<(usize, usize)> {
    // Half the stone's width at this height: the crown widens to the girdle, below it all runs to a point.
    let (half, ring) = if y < CROWN {
        (0.55 + 0.45 * y / CROWN, usize::from(y >= CROWN / 2.0))
    } else {
        let down = (y - CROWN) / (1.0 - CROWN);
        (1.0 - down, 2 + usize::from(down >= 0.45))
    };
    if x.abs() > half {
        return None;
    }
    let across = (x / half + 1.0) / 2.0;
    Some((ring, ((across * FACETS as f64) as usize).min(FACETS - 1)))
}

/// FNV-1a over the words and the gaps between them.
fn seed<'a>(words: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| mix(word.iter().fold(hash, |h, b| mix(h, *b)), b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stone(width: usize, height: usize, words: &[&str]) -> String {
        draw(width, height, words.iter().map(|word| word.as_bytes()))
    }

    #[test]
    fn the_same_words_draw_the_same_stone_and_others_light_it_differently() {
        assert_eq!(stone(40, 12, &["a"]), stone(40, 12, &["a"]));
        assert_ne!(stone(40, 12, &["a"]), stone(40, 12, &["b"]));
        let outline = |text: &str| text.chars().map(|c| c.is_ascii_whitespace()).collect::<Vec<_>>();
        assert_eq!(outline(&stone(40, 12, &["a"])), outline(&stone(40, 12, &["b"])));
    }

    #[test]
    fn whatever_size_is_asked_for_the_picture_stays_within_bounds() {
        for (width, height) in [(0, 0), (1, 1000), (usize::MAX, usize::MAX)] {
            let text = stone(width, height, &[]);
            assert!(text.lines().all(|line| line.len() <= LARGEST.0));
            assert!((4..=LARGEST.1).contains(&text.lines().count()));
        }
    }
}
