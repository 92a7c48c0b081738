//! Places as members of sorted sets: added, told, and searched for by area.
//!
//! A member's score is its place ([`Place::score`]). The commands that search differ in how they are asked and share
//! one `Search`.

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::command::zset::{add_scored, limits, store, zset};
use crate::keyspace::db::Key;
use crate::resp::reply::{Output, Protocol};
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::number::{parse_f64, parse_i64};
use crate::stdx::partial_sort::partial_sort;
use crate::types::geo::{Area, Place, Shape};
use crate::types::zset::view::ZSetRef;
use crate::types::zset::{Direction, ZSet};

/// This family's commands.
pub const COMMANDS: &[Command] = &[
    GEOADD,
    GEODIST,
    GEOHASH,
    GEOPOS,
    GEORADIUS,
    GEORADIUSBYMEMBER,
    GEORADIUSBYMEMBER_RO,
    GEORADIUS_RO,
    GEOSEARCH,
    GEOSEARCHSTORE,
];

/// What most declarations of this file have in common.
const GEO: Command = Command {
    name: "",
    since: "3.2.0",
    group: Group::Geo,
    arity: Arity::AtLeast(2),
    flags: &[Flag::ReadOnly],
    categories: &[],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key [member...]",
    summary: "",
    complexity: "O(1) for each member requested.",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: geopos,
};

/// Longitude and latitude at `i` and behind.
fn place_at(args: &Args<'_>, i: usize) -> Result<Place, Error> {
    let degrees = |i: usize| parse_f64(args.at(i)).ok_or(Error::NotFloat);
    let place = Place { longitude: degrees(i)?, latitude: degrees(i + 1)? };
    if !place.is_valid() {
        let Place { longitude, latitude } = place;
        return Err(Error::text(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}")));
    }
    Ok(place)
}

/// How many metres a unit is.
fn unit(arg: &[u8]) -> Result<f64, Error> {
    match word(arg, &["M", "KM", "FT", "MI"]) {
        Some("M") => Ok(1.0),
        Some("KM") => Ok(1000.0),
        Some("FT") => Ok(0.3048),
        Some(_) => Ok(1609.34),
        None => Err(Error::text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

/// A radius and its unit at `i` and behind.
fn circle_at(args: &Args<'_>, i: usize) -> Result<(Shape, f64), Error> {
    let radius = parse_f64(args.at(i)).ok_or(Error::text("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(Error::text("ERR radius cannot be negative"));
    }
    Ok((Shape::Circle { radius }, unit(args.at(i + 1))?))
}

/// Width, height and their unit at `i` and behind.
fn box_at(args: &Args<'_>, i: usize) -> Result<(Shape, f64), Error> {
    let width = parse_f64(args.at(i)).ok_or(Error::text("ERR need numeric width"))?;
    let height = parse_f64(args.at(i + 1)).ok_or(Error::text("ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(Error::text("ERR height or width cannot be negative"));
    }
    Ok((Shape::Box { width, height }, unit(args.at(i + 2))?))
}

/// Writes a coordinate: seventeen decimals at most.
fn write_degrees(out: &mut Output, degrees: f64) {
    let text = format!("{degrees:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let text = if text == "-0" { "0" } else { text };
    if out.protocol() == Protocol::Resp3 { out.double_text(text.as_bytes()) } else { out.bulk(text.as_bytes()) }
}

/// Writes a distance: always four decimals.
fn write_distance(out: &mut Output, distance: f64) {
    let scaled = (distance * 10_000.0).round_ties_even() as i64;
    out.bulk(format!("{}.{:04}", scaled / 10_000, scaled % 10_000).as_bytes());
}

fn write_place(out: &mut Output, place: Place) {
    out.array(2);
    write_degrees(out, place.longitude);
    write_degrees(out, place.latitude);
}

/// Adds members at places; replies how many were added (CH: or moved).
pub const GEOADD: Command = Command {
    name: "GEOADD",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key [condition(NX | XX)]@6.2.0 [change=CH]@6.2.0 data{longitude:double latitude:double member}...",
    summary: "Adds one or more members to a geospatial index. The key is created if it doesn't exist.",
    complexity: "O(log(N)) for each item added, where N is the number of elements in the sorted set.",
    history: &[("6.2.0", "Added the `CH`, `NX` and `XX` options.")],
    run: geoadd,
    ..GEO
};

fn geoadd(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (mut only_new, mut only_old, mut count_changed, mut first) = (false, false, false, 2);
    while let Some(option) = args.opt(first).and_then(|arg| word(arg, &["NX", "XX", "CH"])) {
        match option {
            "NX" => only_new = true,
            "XX" => only_old = true,
            _ => count_changed = true,
        }
        first += 1;
    }
    let rest = args.len() - first;
    if rest == 0 || !rest.is_multiple_of(3) || only_new && only_old {
        return Err(Error::Syntax);
    }
    let mut scored = Vec::with_capacity(rest / 3);
    for i in (first..args.len()).step_by(3) {
        scored.push((place_at(args, i)?.score(), args.at(i + 2)));
    }
    let key = args.key(&ctx.db, 1);
    let done = add_scored(ctx, &key, (only_new, only_old), scored.iter().copied())?;
    if done.added + done.changed > 0 {
        // The log has it as what it is: members with scores.
        ctx.db.effects.log_as(|| {
            let mut effect = vec![b"zadd".to_vec()];
            effect.extend((1..first).map(|i| args.at(i).to_vec()));
            for (score, member) in scored {
                effect.push((score as u64).to_string().into_bytes());
                effect.push(member.to_vec());
            }
            vec![effect]
        });
    }
    ctx.out.integer((done.added + if count_changed { done.changed } else { 0 }) as i64);
    DONE
}

/// Replies with the places of members.
pub const GEOPOS: Command = Command {
    name: "GEOPOS",
    summary: "Returns the longitude and latitude of members from a geospatial index.",
    run: geopos,
    ..GEO
};

fn geopos(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let zset = ctx.db.read(&key).map(zset).transpose()?;
    ctx.out.array(args.len() - 2);
    for member in args.from(2) {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => write_place(ctx.out, Place::of_score(score)),
            None => ctx.out.null_array(),
        }
    }
    DONE
}

/// Replies with the places of members as common geohashes.
pub const GEOHASH: Command = Command {
    name: "GEOHASH",
    summary: "Returns members from a geospatial index as geohash strings.",
    run: geohash,
    ..GEO
};

fn geohash(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let zset = ctx.db.read(&key).map(zset).transpose()?;
    ctx.out.array(args.len() - 2);
    for member in args.from(2) {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => ctx.out.bulk(&Place::of_score(score).geohash()),
            None => ctx.out.null(),
        }
    }
    DONE
}

/// Replies with the distance of two members.
pub const GEODIST: Command = Command {
    name: "GEODIST",
    arity: Arity::AtLeast(4),
    usage: r#"key member1 member2 [unit("m" | "km" | "ft" | "mi")]"#,
    summary: "Returns the distance between two members of a geospatial index.",
    complexity: "O(1)",
    run: geodist,
    ..GEO
};

fn geodist(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let unit_m = match args.len() {
        4 => 1.0,
        5 => unit(args.at(4))?,
        _ => return Err(Error::Syntax),
    };
    let key = args.key(&ctx.db, 1);
    let zset = ctx.db.read(&key).map(zset).transpose()?;
    let place = |i: usize| zset.and_then(|zset| zset.score(args.at(i))).map(Place::of_score);
    match (place(2), place(3)) {
        (Some(one), Some(other)) => write_distance(ctx.out, one.distance(other) / unit_m),
        _ => ctx.out.null(),
    }
    DONE
}

/// The order of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As it was found.
    None,
    Nearest,
    Farthest,
}

/// Where an area lies.
#[derive(Clone, Copy)]
enum Center {
    At(Place),
    /// Around a member, which is known once the key is looked at.
    Around(usize),
}

/// What all that search can be asked for.
struct Search {
    center: Option<Center>,
    shape: Option<(Shape, f64)>,
    order: Order,
    /// 0 for all.
    count: usize,
    /// Any so many, not the nearest.
    any: bool,
    with_distance: bool,
    with_score: bool,
    with_place: bool,
    /// The argument with the key to store at, and whether distances are stored as scores.
    store: Option<usize>,
    store_distance: bool,
}

/// How a command is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEOSEARCH: the area is among the options.
    Search,
    /// GEOSEARCHSTORE: and the result goes to a key.
    SearchStore,
    /// GEORADIUS: the area comes first; STORE is an option.
    Radius,
    /// GEORADIUS_RO: it is not.
    RadiusReadOnly,
}

impl Search {
    fn new() -> Search {
        Search {
            center: None,
            shape: None,
            order: Order::None,
            count: 0,
            any: false,
            with_distance: false,
            with_score: false,
            with_place: false,
            store: None,
            store_distance: false,
        }
    }

    /// Reads options from argument `i` on. `around` finds a member's place, or refuses.
    fn parse(
        &mut self,
        args: &Args<'_>,
        mut i: usize,
        form: Form,
        around: &mut dyn FnMut(usize) -> Result<Center, Error>,
    ) -> Result<(), Error> {
        let search = matches!(form, Form::Search | Form::SearchStore);
        while i < args.len() {
            let behind = args.len() - i - 1;
            let option = word(
                args.at(i),
                &[
                    "WITHDIST",
                    "WITHHASH",
                    "WITHCOORD",
                    "ANY",
                    "ASC",
                    "DESC",
                    "COUNT",
                    "STORE",
                    "STOREDIST",
                    "FROMMEMBER",
                    "FROMLONLAT",
                    "BYRADIUS",
                    "BYBOX",
                ],
            );
            let member = matches!(self.center, Some(Center::Around(_)));
            let circle = matches!(self.shape, Some((Shape::Circle { .. }, _)));
            i += 1 + match option {
                Some("WITHDIST") => set(&mut self.with_distance),
                Some("WITHHASH") => set(&mut self.with_score),
                Some("WITHCOORD") => set(&mut self.with_place),
                Some("ANY") => set(&mut self.any),
                Some("ASC") => {
                    self.order = Order::Nearest;
                    0
                }
                Some("DESC") => {
                    self.order = Order::Farthest;
                    0
                }
                Some("COUNT") if behind >= 1 => {
                    let count = parse_i64(args.at(i + 1)).ok_or(Error::NotInteger)?;
                    let count = usize::try_from(count).ok().filter(|count| *count > 0);
                    self.count = count.ok_or(Error::text("ERR COUNT must be > 0"))?;
                    1
                }
                Some(word @ ("STORE" | "STOREDIST")) if form == Form::Radius && behind >= 1 => {
                    (self.store, self.store_distance) = (Some(i + 1), word == "STOREDIST");
                    1
                }
                Some("STOREDIST") if form == Form::SearchStore => set(&mut self.store_distance),
                Some("FROMMEMBER") if search && behind >= 1 && (self.center.is_none() || member) => {
                    self.center = Some(around(i + 1)?);
                    1
                }
                Some("FROMLONLAT") if search && behind >= 2 && !member => {
                    self.center = Some(Center::At(place_at(args, i + 1)?));
                    2
                }
                Some("BYRADIUS") if search && behind >= 2 && (self.shape.is_none() || circle) => {
                    self.shape = Some(circle_at(args, i + 1)?);
                    2
                }
                Some("BYBOX") if search && behind >= 3 && !circle => {
                    self.shape = Some(box_at(args, i + 1)?);
                    3
                }
                _ => return Err(Error::Syntax),
            };
        }
        Ok(())
    }

    /// Refuses what does not go together.
    fn check(&self, args: &Args<'_>, form: Form) -> Result<(), Error> {
        if self.store.is_some() && (self.with_distance || self.with_score || self.with_place) {
            let name = if form == Form::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(Error::text(format!(
                "ERR {name} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if matches!(form, Form::Search | Form::SearchStore) {
            let one_of = |what: &str| {
                let name = String::from_utf8_lossy(args.at(0));
                Err(Error::text(format!("ERR exactly one of {what} can be specified for {name}")))
            };
            if self.center.is_none() {
                return one_of("FROMMEMBER or FROMLONLAT");
            }
            if self.shape.is_none() {
                return one_of("BYRADIUS and BYBOX");
            }
        }
        if self.any && self.count == 0 {
            return Err(Error::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// What lies in the area, in the order that was asked for and no more than that.
    fn find(&self, zset: ZSetRef<'_>, area: &Area) -> Vec<Found> {
        let enough = if self.any { self.count } else { usize::MAX };
        let mut all = Vec::new();
        'search: for scores in area.scores() {
            let span = zset.span(|_, score| {
                if score < scores.start {
                    std::cmp::Ordering::Less
                } else if score < scores.end {
                    std::cmp::Ordering::Equal
                } else {
                    std::cmp::Ordering::Greater
                }
            });
            for (member, score) in zset.iter(span.start, Direction::Up).take(span.len()) {
                let place = Place::of_score(score);
                if let Some(distance) = area.distance(place) {
                    all.push(Found { member: member.to_vec(), score, place, distance });
                }
                if all.len() >= enough {
                    break 'search;
                }
            }
        }
        // The nearest are meant where only some are wanted and not just any.
        let order = if self.count > 0 && self.order == Order::None && !self.any { Order::Nearest } else { self.order };
        let by_distance = |a: &Found, b: &Found| match order {
            Order::Farthest => b.distance.total_cmp(&a.distance),
            _ => a.distance.total_cmp(&b.distance),
        };
        if order != Order::None {
            // Equally distant ones stay as they are, but where only some are wanted they do not.
            if self.count == 0 || self.count >= all.len() {
                all.sort_by(by_distance);
            } else {
                partial_sort(&mut all, 0..self.count, by_distance);
            }
        }
        if self.count > 0 {
            all.truncate(self.count);
        }
        all
    }

    fn write(&self, out: &mut Output, found: &[Found], unit_m: f64) {
        let parts = usize::from(self.with_distance) + usize::from(self.with_score) + usize::from(self.with_place);
        out.array(found.len());
        for one in found {
            if parts > 0 {
                out.array(parts + 1);
            }
            out.bulk(&one.member);
            if self.with_distance {
                write_distance(out, one.distance / unit_m);
            }
            if self.with_score {
                out.integer(one.score as i64);
            }
            if self.with_place {
                write_place(out, one.place);
            }
        }
    }
}

fn set(option: &mut bool) -> usize {
    *option = true;
    0
}

/// A member in an area.
struct Found {
    member: Vec<u8>,
    score: f64,
    place: Place,
    /// From the middle, in metres.
    distance: f64,
}

/// The place of a member.
fn member_place(zset: ZSetRef<'_>, member: &[u8]) -> Result<Place, Error> {
    let score = zset.score(member).ok_or(Error::text("ERR could not decode requested zset member"))?;
    Ok(Place::of_score(score))
}

/// Replies with the members in a circle or a box.
pub const GEOSEARCH: Command = Command {
    name: "GEOSEARCH",
    since: "6.2.0",
    arity: Arity::AtLeast(7),
    usage: r#"key from(FROMMEMBER member | FROMLONLAT fromlonlat{longitude:double latitude:double}) by(circle{BYRADIUS radius:double unit("m" | "km" | "ft" | "mi")} | box{BYBOX width:double height:double unit("m" | "km" | "ft" | "mi")}) [order(ASC | DESC)] [count-block{COUNT count [ANY]}] [WITHCOORD] [WITHDIST] [WITHHASH]"#,
    summary: "Queries a geospatial index for members inside an area of a box or a circle.",
    complexity: "O(N+log(M)) where N is the number of elements in the grid-aligned bounding box area around the shape provided as the filter and M is the number of items inside the shape",
    history: &[("7.0.0", "Added support for uppercase unit names.")],
    run: |ctx, args| search(ctx, args, Form::Search),
    ..GEO
};

/// Stores the members in a circle or a box; replies how many.
pub const GEOSEARCHSTORE: Command = Command {
    name: "GEOSEARCHSTORE",
    since: "6.2.0",
    arity: Arity::AtLeast(8),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::OVERWRITE }, Keys::At { first: 2, access: Access::READ }],
    usage: r#"destination:key source:key from(FROMMEMBER member | FROMLONLAT fromlonlat{longitude:double latitude:double}) by(circle{BYRADIUS radius:double unit("m" | "km" | "ft" | "mi")} | box{BYBOX width:double height:double unit("m" | "km" | "ft" | "mi")}) [order(ASC | DESC)] [count-block{COUNT count [ANY]}] [STOREDIST]"#,
    summary: "Queries a geospatial index for members inside an area of a box or a circle, optionally stores the result.",
    complexity: "O(N+log(M)) where N is the number of elements in the grid-aligned bounding box area around the shape provided as the filter and M is the number of items inside the shape",
    history: &[("7.0.0", "Added support for uppercase unit names.")],
    run: |ctx, args| search(ctx, args, Form::SearchStore),
    ..GEO
};

fn search(ctx: &mut Context<'_>, args: &Args<'_>, form: Form) -> Reply {
    let (source, first) = if form == Form::SearchStore { (2, 3) } else { (1, 2) };
    let source = args.key(&ctx.db, source);
    let mut search = Search::new();
    search.store = (form == Form::SearchStore).then_some(1);
    let zset = ctx.db.read(&source).map(zset).transpose()?;
    // A member is looked for where it stands among the options: which mistake is told depends on that.
    search.parse(args, first, form, &mut |member| {
        if let Some(zset) = zset {
            member_place(zset, args.at(member))?;
        }
        Ok(Center::Around(member))
    })?;
    finish(ctx, args, &source, search, form)
}

/// Replies with the members in a circle, or stores them.
pub const GEORADIUS: Command = Command {
    name: "GEORADIUS",
    arity: Arity::AtLeast(6),
    flags: &[Flag::Write, Flag::DenyOom, Flag::MovableKeys],
    keys: &[
        Keys::At { first: 1, access: Access::READ },
        Keys::After { word: "STORE", from: 6, last: 0, step: 1, access: Access::OVERWRITE },
        Keys::After { word: "STOREDIST", from: 6, last: 0, step: 1, access: Access::OVERWRITE },
    ],
    usage: r#"key longitude:double latitude:double radius:double unit("m" | "km" | "ft" | "mi") [WITHCOORD] [WITHDIST] [WITHHASH] [count-block{COUNT count [ANY]@6.2.0}] [order(ASC | DESC)] [store(STORE storekey/key:key | STOREDIST storedistkey/key:key)]"#,
    summary: "Queries a geospatial index for members within a distance from a coordinate, optionally stores the result.",
    complexity: "O(N+log(M)) where N is the number of elements inside the bounding box of the circular area delimited by center and radius and M is the number of items inside the index.",
    history: &[("6.2.0", "Added the `ANY` option for `COUNT`."), ("7.0.0", "Added support for uppercase unit names.")],
    deprecated: Some(("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument")),
    run: |ctx, args| radius(ctx, args, Form::Radius),
    ..GEO
};

/// GEORADIUS that stores nothing.
pub const GEORADIUS_RO: Command = Command {
    name: "GEORADIUS_RO",
    since: "3.2.10",
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: r#"key longitude:double latitude:double radius:double unit("m" | "km" | "ft" | "mi") [WITHCOORD] [WITHDIST] [WITHHASH] [count-block{COUNT count [ANY]@6.2.0}] [order(ASC | DESC)]"#,
    summary: "Returns members from a geospatial index that are within a distance from a coordinate.",
    history: &[("6.2.0", "Added the `ANY` option for `COUNT`.")],
    deprecated: Some(("6.2.0", "`GEOSEARCH` with the `BYRADIUS` argument")),
    run: |ctx, args| radius(ctx, args, Form::RadiusReadOnly),
    ..GEORADIUS
};

fn radius(ctx: &mut Context<'_>, args: &Args<'_>, form: Form) -> Reply {
    let key = args.key(&ctx.db, 1);
    ctx.db.read(&key).map(zset).transpose()?;
    let mut search = Search::new();
    search.center = Some(Center::At(place_at(args, 2)?));
    search.shape = Some(circle_at(args, 4)?);
    search.parse(args, 6, form, &mut |_| Err(Error::Syntax))?;
    finish(ctx, args, &key, search, form)
}

/// Replies with the members in a circle around one of them, or stores them.
pub const GEORADIUSBYMEMBER: Command = Command {
    name: "GEORADIUSBYMEMBER",
    arity: Arity::AtLeast(5),
    keys: &[
        Keys::At { first: 1, access: Access::READ },
        Keys::After { word: "STORE", from: 5, last: 0, step: 1, access: Access::OVERWRITE },
        Keys::After { word: "STOREDIST", from: 5, last: 0, step: 1, access: Access::OVERWRITE },
    ],
    usage: r#"key member radius:double unit("m" | "km" | "ft" | "mi") [WITHCOORD] [WITHDIST] [WITHHASH] [count-block{COUNT count [ANY]}] [order(ASC | DESC)] [store(STORE storekey/key:key | STOREDIST storedistkey/key:key)]"#,
    summary: "Queries a geospatial index for members within a distance from a member, optionally stores the result.",
    history: &[("7.0.0", "Added support for uppercase unit names.")],
    deprecated: Some(("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments")),
    run: |ctx, args| radius_by_member(ctx, args, Form::Radius),
    ..GEORADIUS
};

/// GEORADIUSBYMEMBER that stores nothing.
pub const GEORADIUSBYMEMBER_RO: Command = Command {
    name: "GEORADIUSBYMEMBER_RO",
    since: "3.2.10",
    arity: Arity::AtLeast(5),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: r#"key member radius:double unit("m" | "km" | "ft" | "mi") [WITHCOORD] [WITHDIST] [WITHHASH] [count-block{COUNT count [ANY]}] [order(ASC | DESC)]"#,
    summary: "Returns members from a geospatial index that are within a distance from a member.",
    history: &[],
    deprecated: Some(("6.2.0", "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments")),
    run: |ctx, args| radius_by_member(ctx, args, Form::RadiusReadOnly),
    ..GEORADIUS
};

fn radius_by_member(ctx: &mut Context<'_>, args: &Args<'_>, form: Form) -> Reply {
    let key = args.key(&ctx.db, 1);
    let mut search = Search::new();
    search.center = Some(Center::Around(2));
    // Without a key there is nothing to measure from, and the circle is not looked at.
    if let Some(zset) = ctx.db.read(&key).map(zset).transpose()? {
        member_place(zset, args.at(2))?;
        search.shape = Some(circle_at(args, 3)?);
    }
    search.parse(args, 5, form, &mut |_| Err(Error::Syntax))?;
    finish(ctx, args, &key, search, form)
}

/// Searches, and replies or stores.
fn finish(ctx: &mut Context<'_>, args: &Args<'_>, source: &Key<'_>, search: Search, form: Form) -> Reply {
    search.check(args, form)?;
    let limits = limits(ctx);
    let (mut found, mut unit_m) = (Vec::new(), 1.0);
    let entry = ctx.db.beside(source);
    if let (Some(zset), Some(center), Some((shape, unit))) = (entry.map(zset).transpose()?, search.center, search.shape)
    {
        let center = match center {
            Center::At(place) => place,
            Center::Around(member) => member_place(zset, args.at(member))?,
        };
        found = search.find(zset, &Area { center, shape, unit_m: unit });
        unit_m = unit;
    }
    let Some(target) = search.store else {
        search.write(ctx.out, &found, unit_m);
        return DONE;
    };
    let mut result = ZSet::default();
    result.make_room(found.len(), found.iter().map(|one| one.member.len()).max().unwrap_or(0), limits);
    for one in &found {
        result.insert(&one.member, if search.store_distance { one.distance / unit_m } else { one.score }, limits);
    }
    let target = args.key(&ctx.db, target);
    store(ctx, &target, result, if form == Form::SearchStore { "geosearchstore" } else { "georadiusstore" });
    if !found.is_empty() {
        ctx.db.effects.dirty += found.len() as u64 - 1;
    }
    ctx.out.integer(found.len() as i64);
    DONE
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;
    use crate::resp::reply::Protocol;

    #[test]
    fn places_are_added_told_measured_and_searched() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"), ":2|");
        assert_eq!(bench.run("GEOADD g XX CH 15.1 37.5 Catania 1 1 none"), ":1|");
        assert_eq!(bench.run("GEOADD g CH 15.087269 37.502669 Catania"), ":1|");
        assert_eq!(bench.run("GEODIST g Palermo Catania"), "$11|166274.1516|");
        assert_eq!(bench.run("GEODIST g Palermo Catania KM"), "$8|166.2742|");
        assert_eq!(bench.run("GEODIST g Palermo none"), "$-1|");
        assert_eq!(bench.run("GEOHASH g Palermo none"), "*2|$11|sqc8b49rny0|$-1|");
        assert_eq!(bench.run("GEOPOS g Palermo none"), "*2|*2|$20|13.36138933897018433|$20|38.11555639549629859|*-1|");
        assert_eq!(bench.run("GEORADIUS g 15 37 200 km ASC"), "*2|$7|Catania|$7|Palermo|");
        assert_eq!(
            bench.run("GEOSEARCH g FROMMEMBER Palermo BYBOX 400 400 km DESC WITHDIST COUNT 1"),
            "*1|*2|$7|Catania|$8|166.2742|"
        );
        assert_eq!(bench.run("GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 100 km STOREDIST"), ":1|");
        assert!(bench.run("ZRANGE d 0 -1 WITHSCORES").starts_with("*2|$7|Catania|$"));
        assert_eq!(bench.run("GEORADIUSBYMEMBER g Palermo 1 m STORE d"), ":1|");
        assert_eq!(bench.run("ZRANGE d 0 -1 WITHSCORES"), "*2|$7|Palermo|$16|3479099956230698|");
        assert_eq!(bench.run("GEORADIUS_RO g 15 37 200 km STORE d"), "-ERR syntax error|");
        assert_eq!(bench.run("GEORADIUS none 15 37 200 km STORE d"), ":0|");
        assert_eq!(bench.run("EXISTS d"), ":0|");
        bench.out_as(Protocol::Resp3);
        assert_eq!(bench.run("GEOPOS g Palermo none"), "*2|*2|,13.36138933897018433|,38.11555639549629859|_|");
    }

    #[test]
    fn what_makes_no_place_or_area_is_refused() {
        let mut bench = Bench::new();
        bench.run("SET s v");
        bench.run("GEOADD g 1 1 a");
        for (request, error) in [
            ("GEOADD g 181 1 b", "ERR invalid longitude,latitude pair 181.000000,1.000000"),
            ("GEOADD g NX XX 1 1 b", "ERR syntax error"),
            ("GEOADD g x 1 b", "ERR value is not a valid float"),
            ("GEODIST g a a yd", "ERR unsupported unit provided. please use M, KM, FT, MI"),
            ("GEORADIUS g 1 1 -1 m", "ERR radius cannot be negative"),
            ("GEORADIUSBYMEMBER g none 1 m", "ERR could not decode requested zset member"),
            ("GEOSEARCH g FROMLONLAT 1 1 BYRADIUS 1 m ANY", "ERR the ANY argument requires COUNT argument"),
            (
                "GEOSEARCH g ASC BYRADIUS 1 m DESC",
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for GEOSEARCH",
            ),
            (
                "GEOSEARCH g FROMLONLAT 1 1 COUNT 1 ASC",
                "ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH",
            ),
            ("GEOPOS s a", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ] {
            assert_eq!(bench.run(request), format!("-{error}|"), "{request}");
        }
    }
}
