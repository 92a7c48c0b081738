//! Lists: where they change their encoding, for every kind of limit.

use std::fmt::Write as _;

/// The bytes that a listpack of large strings takes beside them when a push is weighed against the limit.
const EMPTY: usize = 7;
/// The most bytes of a listpack whose limit is a number of elements.
const SAFE: usize = 8192;

/// What Redis 7.2 answers for the encoding; older ones know quicklists only.
fn encoding(lines: &mut String, listpack: bool) {
    let raw = if listpack { "$8\\r\\nlistpack\\r\\n" } else { "$9\\r\\nquicklist\\r\\n" };
    let _ = writeln!(lines, "@version72 \"{raw}\" OBJECT ENCODING l");
}

/// A table of its own: lists that grow to their limit and beyond it, and shrink again.
pub fn encodings() -> String {
    let mut lines = String::new();
    for (limit, bytes) in [(-1, 4096), (-2, 8192), (-3, 16384), (-4, 32768), (-5, 65536)] {
        let room = bytes - EMPTY;
        let _ = writeln!(lines, "== bytes {limit}\nCONFIG SET list-max-listpack-size {limit}");
        for (first, fits) in [(room, true), (room + 1, false)] {
            let _ = writeln!(lines, "RPUSH l {}", "x".repeat(first));
            encoding(&mut lines, fits);
            lines.push_str("LLEN l\nDEL l\n");
        }
        // In two halves, at either end, and by LSET and LINSERT, which find the list as it is.
        for push in ["RPUSH l", "LPUSH l", "RPUSHX l", "LINSERT l BEFORE a"] {
            let _ = writeln!(lines, "RPUSH l a\n{push} {}", "y".repeat(bytes));
            encoding(&mut lines, false);
            lines.push_str("LLEN l\nLPOP l\n");
            let _ = writeln!(lines, "RPUSH l b c\nLRANGE l 0 -1\nDEL l");
        }
        // What goes over by a little is a quicklist, and one again only when half of the limit is enough.
        let quarter = "z".repeat(bytes / 4);
        let _ = writeln!(lines, "RPUSH l {quarter} {quarter} {quarter} {quarter}");
        encoding(&mut lines, false);
        lines.push_str("LPOP l\n");
        encoding(&mut lines, false);
        lines.push_str("LTRIM l 0 0\n");
        encoding(&mut lines, true);
        let _ = writeln!(lines, "LSET l 0 {}", "z".repeat(bytes + 1));
        encoding(&mut lines, false);
        lines.push_str("LSET l 0 small\n");
        encoding(&mut lines, true);
        lines.push_str("LRANGE l 0 -1\nDEL l\n");
    }
    for limit in [1usize, 2, 3, 8, 128, 1000] {
        let _ = writeln!(lines, "== elements {limit}\nCONFIG SET list-max-listpack-size {limit}");
        for (count, fits) in [(limit, true), (limit + 1, false)] {
            let elements: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            let _ = writeln!(lines, "RPUSH l {}", elements.join(" "));
            encoding(&mut lines, fits);
            lines.push_str("LRANGE l 0 -1\nLRANGE l -3 -2\nLINDEX l -1\nLPOS l 1 RANK -1\nDEL l\n");
        }
        // One at a time, up and down again: the last one has a node of its own, and two nodes are no listpack.
        for end in ["LPOP", "RPOP"] {
            for n in 0..=limit {
                let _ = writeln!(lines, "LPUSH l {n}");
            }
            encoding(&mut lines, false);
            let _ = writeln!(lines, "{end} l");
            encoding(&mut lines, false);
            if limit > 1 {
                let _ = writeln!(lines, "{end} l {}", limit - limit / 2);
                encoding(&mut lines, end == "LPOP" || limit < 8);
                lines.push_str("LPOP l\n");
            }
            if limit >= 8 {
                encoding(&mut lines, true);
            }
            lines.push_str("LRANGE l 0 -1\nDEL l\n");
        }
        let _ = writeln!(lines, "RPUSH l {}\nRPUSH l y", "x".repeat(SAFE - EMPTY));
        encoding(&mut lines, false);
        lines.push_str("LLEN l\nLPOP l 2\n");
    }
    let _ = writeln!(lines, "== no elements\nCONFIG SET list-max-listpack-size 0\nRPUSH l a");
    lines.push_str("OBJECT ENCODING none\nCONFIG SET list-max-listpack-size x\nCONFIG SET list-max-listpack-size -2\n");
    lines
}
