//! Checks of texts that mean something: file names, host names, addresses, templates.

use std::net::{Ipv4Addr, Ipv6Addr};

type Checked = Result<(), &'static str>;

fn has_slash(name: &[u8]) -> bool {
    name.contains(&b'/') || name.contains(&b'\\')
}

/// A name in `dir`, not a path.
pub fn dbfilename(name: &[u8]) -> Checked {
    match name {
        [] => Err("dbfilename can't be empty"),
        path if has_slash(path) => Err("dbfilename can't be a path, just a filename"),
        _ => Ok(()),
    }
}

/// A name in `appenddirname`, not a path.
pub fn appendfilename(name: &[u8]) -> Checked {
    match name {
        [] => Err("appendfilename can't be empty"),
        path if has_slash(path) => Err("appendfilename can't be a path, just a filename"),
        _ => Ok(()),
    }
}

/// A name in `dir`, not a path.
pub fn appenddirname(name: &[u8]) -> Checked {
    match name {
        [] => Err("appenddirname can't be empty"),
        path if has_slash(path) => Err("appenddirname can't be a path, just a dirname"),
        _ => Ok(()),
    }
}

/// A path.
pub fn cluster_config_file(path: &[u8]) -> Checked {
    if path.is_empty() { Err("cluster-config-file can't be empty") } else { Ok(()) }
}

/// Letters, digits, hyphens and dots; shorter than 256 bytes. Empty is none.
pub fn hostname(name: &[u8]) -> Checked {
    const LIMIT: usize = 256;
    if name.len() >= LIMIT {
        return Err("Hostnames must be less than 256 characters");
    }
    if name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) {
        Ok(())
    } else {
        Err("Hostnames may only contain alphanumeric characters, hyphens or dots")
    }
}

/// What can stand in nodes.conf. Empty is none.
pub fn node_name(name: &[u8]) -> Checked {
    if name.iter().any(|b| b"!#$%&()*+:;<>?@[]^{|}~".contains(b)) {
        Err("Announced human node name contained invalid character")
    } else {
        Ok(())
    }
}

/// An IPv4 address, or empty for none.
pub fn ipv4(address: &[u8]) -> Checked {
    let valid = std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok());
    if valid || address.is_empty() { Ok(()) } else { Err("Invalid IPv4 address") }
}

/// An IPv6 address, or empty for none.
pub fn ipv6(address: &[u8]) -> Checked {
    let valid = std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    if valid || address.is_empty() { Ok(()) } else { Err("Invalid IPv6 address") }
}

/// The variables of `proc-title-template`.
pub const TITLE_VARIABLES: [&str; 7] =
    ["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];

/// Text with `{variables}`; `{{` is a brace.
pub fn title_template(template: &[u8]) -> Checked {
    expand_title(template, |_| Vec::new()).map(|_| ()).ok_or("template format is invalid or contains unknown variables")
}

/// The title of the process: `template` with each variable replaced by what `value` says it is.
///
/// `None` if a variable is unknown or a brace is not closed, which a checked template never has.
/// Blanks at both ends are cut off: they come from variables that are empty.
pub fn expand_title(template: &[u8], mut value: impl FnMut(&str) -> Vec<u8>) -> Option<Vec<u8>> {
    let mut title = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.iter().position(|b| *b == b'{') {
        title.extend_from_slice(&rest[..open]);
        rest = &rest[open + 1..];
        if let [b'{', after @ ..] = rest {
            title.push(b'{');
            rest = after;
            continue;
        }
        let close = rest.iter().position(|b| *b == b'}')?;
        let variable = TITLE_VARIABLES.into_iter().find(|known| known.as_bytes() == &rest[..close])?;
        title.extend(value(variable));
        rest = &rest[close + 1..];
    }
    title.extend_from_slice(rest);
    Some(title.trim_ascii().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_not_placed() {
        assert_eq!(dbfilename(b"dump.rdb"), Ok(()));
        assert_eq!(dbfilename(b""), Err("dbfilename can't be empty"));
        assert_eq!(dbfilename(b"../dump.rdb"), Err("dbfilename can't be a path, just a filename"));
        assert_eq!(appendfilename(b"a/b"), Err("appendfilename can't be a path, just a filename"));
        assert_eq!(appenddirname(b"a\\b"), Err("appenddirname can't be a path, just a dirname"));
        assert_eq!(cluster_config_file(b""), Err("cluster-config-file can't be empty"));
    }

    #[test]
    fn host_names_have_few_characters() {
        assert_eq!(hostname(b"db-1.example.com"), Ok(()));
        assert!(hostname(b"a_b").is_err());
        assert_eq!(hostname(&[b'a'; 255]), Ok(()));
        assert_eq!(hostname(&[b'a'; 256]), Err("Hostnames must be less than 256 characters"));
        assert!(node_name(b"a:b").is_err());
    }

    #[test]
    fn addresses_are_of_their_family() {
        assert!(ipv4(b"1.2.3.4").is_ok() && ipv4(b"").is_ok() && ipv4(b"::1").is_err());
        assert!(ipv6(b"::1").is_ok() && ipv6(b"").is_ok() && ipv6(b"1.2.3.4").is_err());
    }

    #[test]
    fn titles_are_filled_in() {
        let value = |name: &str| if name == "port" { b"6379".to_vec() } else { Vec::new() };
        assert_eq!(expand_title(b"{{x} {port} {title}", value).unwrap(), b"{x} 6379");
        assert!(title_template(b"").is_ok() && title_template(b"--my--title").is_ok());
        assert!(title_template(b"{x}").is_err() && title_template(b"{port").is_err());
    }
}
