//! CONFIG GET and CONFIG SET: what a running server's configuration says, and how it changes.
//!
//! A change makes a new [`Config`] or none at all. Who applies it keeps the old one, and goes back to
//! it if applying fails; [`SetError::failed`] is then what the client is told.

use super::setting::Manner;
use super::table::{Config, Directive, directives, find};
use crate::stdx::glob::{Case, matches};
use std::fmt;

/// What is known about the one who changes the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changer {
    /// Whether the connection comes from this machine: protected directives may depend on it.
    pub local: bool,
    /// Whether data is being loaded at the moment.
    pub loading: bool,
}

/// Why CONFIG SET changed nothing. Its text is the reply without `ERR `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetError {
    /// There is no directive of this name.
    Unknown(Vec<u8>),
    /// A directive cannot be set now; to be answered with the usual -LOADING.
    Loading,
    /// A value was refused, or could not be applied.
    Failed {
        /// The name of the directive.
        argument: Vec<u8>,
        /// What is wrong.
        reason: String,
    },
}

impl SetError {
    /// `reason` is why the value of `directive` could not be applied.
    pub fn failed(directive: &Directive, reason: impl Into<String>) -> SetError {
        SetError::Failed { argument: directive.name.into(), reason: reason.into() }
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Unknown(name) => {
                let name = String::from_utf8_lossy(name);
                write!(f, "Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            SetError::Loading => f.write_str("data is being loaded"),
            SetError::Failed { argument, reason } => {
                let argument = String::from_utf8_lossy(argument);
                write!(f, "CONFIG SET failed (possibly related to argument '{argument}') - {reason}")
            }
        }
    }
}

impl std::error::Error for SetError {}

impl Config {
    /// Names and values of all directives that fit one of `patterns`, each name once, in the order of the
    /// table.
    ///
    /// Aliases are directives of their own here. A pattern without wildcards is a name: it finds hidden
    /// directives too, and is repeated as it was written.
    pub fn matching(&self, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let is_name = |pattern: &[u8]| !pattern.iter().any(|b| matches!(b, b'[' | b'*' | b'?'));
        let mut found = Vec::new();
        for directive in directives() {
            for name in directive.names() {
                let fits = patterns.iter().find_map(|pattern| {
                    if is_name(pattern) {
                        return pattern.eq_ignore_ascii_case(name.as_bytes()).then(|| pattern.to_vec());
                    }
                    let fits = !directive.flags.hidden && matches(pattern, name.as_bytes(), Case::Insensitive);
                    fits.then(|| name.as_bytes().to_vec())
                });
                found.extend(fits.map(|name| (name, directive.text(self))));
            }
        }
        found
    }

    /// This configuration with all of `changes` made, and the directives that differ from what they were
    /// (or whose files may), in the order given. Values that are a list are separated by single blanks.
    ///
    /// The first thing wrong is the error: first of all names and permissions, then values.
    pub fn with(
        &self,
        changes: &[(&[u8], &[u8])],
        changer: Changer,
    ) -> Result<(Config, Vec<&'static Directive>), SetError> {
        let mut directives: Vec<(&'static Directive, &'static str)> = Vec::with_capacity(changes.len());
        for (given, _) in changes {
            let (directive, name) = find(given).ok_or_else(|| SetError::Unknown(given.to_vec()))?;
            let failed = |reason: &str| Err(SetError::Failed { argument: given.to_vec(), reason: reason.into() });
            if directive.flags.immutable {
                return failed("can't set immutable config");
            }
            if directive.flags.protected && !self.enable_protected_configs.allows(changer.local) {
                return failed("can't set protected config");
            }
            if directive.flags.deny_loading && changer.loading {
                return Err(SetError::Loading);
            }
            // By name: setting a directive by both of its names is not a duplicate, and the last wins.
            if directives.iter().any(|(_, other)| *other == name) {
                return failed("duplicate parameter");
            }
            directives.push((directive, name));
        }
        let mut config = self.clone();
        for ((directive, name), (_, value)) in directives.iter().zip(changes) {
            let words: Vec<Vec<u8>> = match directive.many {
                true if value.is_empty() => Vec::new(),
                true => value.split(|b| *b == b' ').map(<[u8]>::to_vec).collect(),
                false => vec![value.to_vec()],
            };
            directive
                .assign(&mut config, &words, Manner::Replace)
                .map_err(|reason| SetError::Failed { argument: (*name).into(), reason })?;
        }
        config.settle();
        let mut changed: Vec<&'static Directive> = Vec::new();
        for (directive, _) in directives {
            if (directive.flags.volatile || !directive.same(self, &config)) && !changed.contains(&directive) {
                changed.push(directive);
            }
        }
        Ok((config, changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::choice::Permission;
    use crate::config::special::DataMemory;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const LOCAL: Changer = Changer { local: true, loading: false };

    fn names(config: &Config, patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<&[u8]> = patterns.iter().map(|p| p.as_bytes()).collect();
        let found = config.matching(&patterns);
        found.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
    }

    fn set(config: &Config, changes: &[(&str, &str)]) -> Result<(Config, Vec<&'static str>), String> {
        let changes: Vec<(&[u8], &[u8])> = changes.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let (config, changed) = config.with(&changes, LOCAL).map_err(|e| e.to_string())?;
        Ok((config, changed.iter().map(|d| d.name).collect()))
    }

    fn reason(changes: &[(&str, &str)]) -> String {
        set(&Config::default(), changes).unwrap_err()
    }

    #[test]
    fn patterns_find_names_and_aliases_once() {
        let config = Config::default();
        let found = names(&config, &["maxmemory", "maxmemory*", "bind", "*of", "BIND"]);
        let distinct: HashSet<String> = found.iter().map(|n| n.to_lowercase()).collect();
        assert_eq!(distinct.len(), found.len());
        for name in ["slaveof", "replicaof", "maxmemory-samples", "maxmemory", "bind"] {
            assert!(distinct.contains(name), "{name}");
        }
    }

    #[test]
    fn a_name_is_repeated_as_it_was_written() {
        assert_eq!(Config::default().matching(&[b"MaxMemory"]), [(b"MaxMemory".to_vec(), b"0".to_vec())]);
        assert_eq!(names(&Config::default(), &["MAXMEMORY-P*"]), ["maxmemory-policy"]);
        assert!(names(&Config::default(), &["maxmem"]).is_empty());
    }

    #[test]
    fn hidden_directives_need_their_full_name() {
        let config = Config::default();
        assert!(names(&config, &["*", "key-load-dela?"]).iter().all(|name| name != "key-load-delay"));
        assert_eq!(names(&config, &["key-load-delay"]), ["key-load-delay"]);
    }

    #[test]
    fn several_directives_change_at_once() {
        let changes = [("maxmemory", "10000001"), ("save", "3000 5"), ("hz", "10"), ("Slave-Priority", "7")];
        let (config, changed) = set(&Config::default(), &changes).unwrap();
        assert_eq!(changed, ["maxmemory", "save", "replica-priority"]);
        assert_eq!((config.maxmemory, config.replica_priority), (DataMemory::Bytes(10_000_001), 7));
        assert_eq!(config.matching(&[b"save"])[0].1, b"3000 5");
    }

    #[test]
    fn errors_are_those_of_redis() {
        let failed = |name, reason| format!("CONFIG SET failed (possibly related to argument '{name}') - {reason}");
        // Each was asked of a running Redis.
        for (changes, error) in [
            (
                &[("maxmemory", "10000001"), ("maxmemory-clients", "200%"), ("client-query-buffer-limit", "invalid")][..],
                failed("maxmemory-clients", "percentage argument must be less or equal to 100"),
            ),
            (&[("nosuch", "1")], "Unknown option or number of arguments for CONFIG SET - 'nosuch'".into()),
            (&[("rename-command", "a b")], {
                "Unknown option or number of arguments for CONFIG SET - 'rename-command'".into()
            }),
            (&[("port", "1"), ("Port", "2")], failed("Port", "duplicate parameter")),
            (&[("Databases", "3")], failed("Databases", "can't set immutable config")),
            (&[("dir", "/tmp")], failed("dir", "can't set protected config")),
            (&[("PORT", "x")], failed("port", "argument couldn't be parsed into an integer")),
            (&[("hash-max-ziplist-value", "abc")], failed("hash-max-ziplist-value", "argument must be a memory value")),
            (&[("maxmemory-clients", "1x")], failed("maxmemory-clients", "argument must be a memory or percent value")),
            (&[("maxmemory", "-1")], failed("maxmemory", "argument must be a memory value")),
            (&[("rdbcompression", "1")], failed("rdbcompression", "argument must be 'yes' or 'no'")),
            (&[("appendfsync", "x")], {
                failed("appendfsync", "argument(s) must be one of the following: everysec, always, no")
            }),
            (&[("maxmemory-samples", "0")], {
                failed("maxmemory-samples", "argument must be between 1 and 2147483647 inclusive")
            }),
            (&[("repl-backlog-size", "99999999999999999999gb")], {
                failed("repl-backlog-size", "argument must be between 1 and 9223372036854775807 inclusive")
            }),
            (&[("proc-title-template", "{x}")], {
                failed("proc-title-template", "template format is invalid or contains unknown variables")
            }),
        ] {
            assert_eq!(reason(changes), error);
        }
    }

    #[test]
    fn both_names_of_one_directive_may_be_set_together() {
        let (config, changed) = set(&Config::default(), &[("replica-priority", "5"), ("slave-priority", "6")]).unwrap();
        assert_eq!((config.replica_priority, changed), (6, vec!["replica-priority"]));
    }

    #[test]
    fn protected_directives_follow_their_policy() {
        let change: &[(&[u8], &[u8])] = &[(b"dbfilename", b"x.rdb")];
        for (policy, local, remote) in
            [(Permission::No, false, false), (Permission::Local, true, false), (Permission::Yes, true, true)]
        {
            let config = Config { enable_protected_configs: policy, ..Config::default() };
            assert_eq!(config.with(change, LOCAL).is_ok(), local);
            assert_eq!(config.with(change, Changer { local: false, loading: false }).is_ok(), remote);
        }
    }

    #[test]
    fn some_directives_wait_until_data_is_loaded() {
        let loading = Changer { local: true, loading: true };
        let config = Config { enable_protected_configs: Permission::Yes, ..Config::default() };
        assert_eq!(config.with(&[(b"dir", b"x")], loading).unwrap_err(), SetError::Loading);
        assert_eq!(config.with(&[(b"appendonly", b"yes")], loading).unwrap_err(), SetError::Loading);
        assert!(config.with(&[(b"loglevel", b"debug")], loading).is_ok());
    }

    #[test]
    fn the_same_value_is_no_change_unless_a_file_is_behind_it() {
        let (config, changed) = set(&Config::default(), &[("tls-cert-file", "a"), ("maxclients", "10000")]).unwrap();
        assert_eq!(changed, ["tls-cert-file"]);
        assert_eq!(set(&config, &[("tls-cert-file", "a")]).unwrap().1, ["tls-cert-file"]);
    }

    #[test]
    fn everything_shown_can_be_set_again() {
        let config = Config { enable_protected_configs: Permission::Yes, ..Config::default() };
        for (name, value) in config.matching(&[b"*"]) {
            if find(&name).unwrap().0.flags.immutable {
                continue;
            }
            let (same, _) = config.with(&[(&name, &value)], LOCAL).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(same, config);
        }
    }

    #[test]
    fn an_empty_list_has_no_words() {
        let (config, changed) = set(&Config::default(), &[("save", ""), ("client-output-buffer-limit", "")]).unwrap();
        assert_eq!((config.save.0.len(), changed), (0, vec!["save"]));
        assert!(reason(&[("shutdown-on-sigint", "")]).contains("must be one of"));
        assert!(reason(&[("oom-score-adj-values", "")]).contains("wrong number of arguments"));
    }

    #[test]
    fn hz_out_of_bounds_is_cut() {
        let (config, _) = set(&Config::default(), &[("hz", "10000")]).unwrap();
        assert_eq!(config.hz, 500);
    }

    proptest! {
        #[test]
        fn a_change_that_fails_leaves_nothing_behind(good in 0u16.., bad in "[a-z]{1,5}") {
            let config = Config::default();
            let good = good.to_string();
            let changes: [(&[u8], &[u8]); 2] = [(b"port", good.as_bytes()), (b"hz", bad.as_bytes())];
            prop_assert!(config.with(&changes, LOCAL).is_err());
            prop_assert_eq!(config, Config::default());
        }
    }
}
