//! Where the channels of a request are, for those commands that name some.

/// Which arguments of a command are channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Whether all arguments from the first on are, or the first alone.
    pub all: bool,
    /// Whether they are patterns.
    pub patterns: bool,
}

impl Channels {
    /// Those of the command with this name (lower case) that it publishes to or subscribes to. Leaving a
    /// channel needs no permission, and so UNSUBSCRIBE has none.
    pub fn of(command: &str) -> Option<Channels> {
        Some(match command {
            "publish" | "spublish" => Channels { all: false, patterns: false },
            "subscribe" | "ssubscribe" => Channels { all: true, patterns: false },
            "psubscribe" => Channels { all: true, patterns: true },
            _ => return None,
        })
    }

    /// Their positions among `len` arguments.
    pub fn positions(self, len: usize) -> std::ops::Range<usize> {
        1..if self.all { len } else { len.min(2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_where_they_stand() {
        assert_eq!(Channels::of("publish").unwrap().positions(3), 1..2);
        assert_eq!(Channels::of("psubscribe").unwrap().positions(4), 1..4);
        assert!(Channels::of("psubscribe").unwrap().patterns);
        assert_eq!(Channels::of("unsubscribe"), None);
    }
}
