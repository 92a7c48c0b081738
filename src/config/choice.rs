//! Values picked from a list of names.

use super::setting::{Manner, Reason, Setting, Written, one};

/// Declares enums whose variants have names in the configuration; the first name is the one printed.
macro_rules! choices {
    ($($(#[$doc:meta])* $choice:ident { $($variant:ident = $($name:literal)|+),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each means what its name says in the configuration")]
        pub enum $choice { $($variant),+ }

        impl $choice {
            /// Every name with what it stands for, in the order in which errors list them.
            pub const NAMES: &'static [(&'static str, $choice)] = &[$($(($name, $choice::$variant)),+),+];

            /// The name that CONFIG GET prints.
            pub fn name(self) -> &'static str {
                Self::NAMES.iter().find(|(_, value)| *value == self).map_or("unknown", |(name, _)| name)
            }
        }

        impl Setting for $choice {
            type Rule = ();

            fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
                let word = one(words)?;
                let known = Self::NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
                match known {
                    Some((_, value)) => *self = *value,
                    None => return Err(none_of(Self::NAMES.iter().map(|(name, _)| *name))),
                }
                Ok(())
            }

            fn text(&self, (): ()) -> Vec<u8> {
                self.name().as_bytes().to_vec()
            }

            fn accepts((): ()) -> String {
                list(Self::NAMES.iter().map(|(name, _)| *name))
            }
        }
    )+};
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn none_of<'a>(names: impl Iterator<Item = &'a str>) -> Reason {
    format!("argument(s) must be one of the following: {}", list(names))
}

choices! {
    /// What is removed when memory is over its limit.
    MaxmemoryPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileLrm = "volatile-lrm",
        VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysLrm = "allkeys-lrm",
        AllkeysRandom = "allkeys-random",
        NoEviction = "noeviction",
    }
    /// Who the system log thinks we are.
    SyslogFacility {
        User = "user",
        Local0 = "local0",
        Local1 = "local1",
        Local2 = "local2",
        Local3 = "local3",
        Local4 = "local4",
        Local5 = "local5",
        Local6 = "local6",
        Local7 = "local7",
    }
    /// The least important events that are logged.
    LogLevel {
        Debug = "debug",
        Verbose = "verbose",
        Notice = "notice",
        Warning = "warning",
        Nothing = "nothing",
    }
    /// How a log line is laid out.
    LogFormat { Legacy = "legacy", Logfmt = "logfmt" }
    /// How a log line tells the time.
    LogTimestampFormat { Legacy = "legacy", Iso8601 = "iso8601", Milliseconds = "milliseconds" }
    /// The supervisor that is told when the server is ready.
    Supervised { Upstart = "upstart", Systemd = "systemd", Auto = "auto", No = "no" }
    /// When the append only file is synced to disk.
    AppendFsync { EverySec = "everysec", Always = "always", No = "no" }
    /// How a replica takes a full synchronisation without a file.
    ReplDisklessLoad {
        Disabled = "disabled",
        OnEmptyDb = "on-empty-db",
        SwapDb = "swapdb",
        FlushBeforeLoad = "flush-before-load",
    }
    /// Whether clients must show a certificate.
    TlsAuthClients { No = "no", Yes = "yes", Optional = "optional" }
    /// How `oom_score_adj` of the process is set.
    OomScoreAdj { No = "no", Relative = "yes" | "relative", Absolute = "absolute" }
    /// The channels of a new user.
    AclPubsubDefault { AllChannels = "allchannels", ResetChannels = "resetchannels" }
    /// Whose serialized values are checked in depth.
    SanitizeDumpPayload { No = "no", Yes = "yes", Clients = "clients" }
    /// Who may use what is dangerous.
    Permission { No = "no", Yes = "yes", Local = "local" }
    /// What CLUSTER SLOTS calls a node by.
    EndpointType { Ip = "ip", Hostname = "hostname", Unknown = "unknown-endpoint" }
    /// What a replica does when a command of its primary fails.
    PropagationErrorBehavior { Ignore = "ignore", Panic = "panic", PanicOnReplicas = "panic-on-replicas" }
}

impl Permission {
    /// Whether a client may, given whether its connection comes from this machine.
    pub fn allows(self, local: bool) -> bool {
        match self {
            Permission::No => false,
            Permission::Yes => true,
            Permission::Local => local,
        }
    }
}

/// How a signal shuts the server down: SHUTDOWN's options. None of them is Redis' `default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShutdownOptions {
    /// Save a snapshot even if none is configured.
    pub save: bool,
    /// Save none even if one is configured.
    pub nosave: bool,
    /// Do not wait for replicas.
    pub now: bool,
    /// Exit even if saving failed.
    pub force: bool,
    /// Have a replica take over before, in a cluster.
    pub failover: bool,
}

impl ShutdownOptions {
    /// What is listed where a word is wrong: what Redis lists, which knows no `failover`.
    const NAMES: [&'static str; 5] = ["default", "save", "nosave", "now", "force"];

    fn set(&self) -> impl Iterator<Item = &'static str> {
        let set = [false, self.save, self.nosave, self.now, self.force];
        let known = Self::NAMES.into_iter().zip(set).filter(|(_, set)| *set).map(|(name, _)| name);
        known.chain(self.failover.then_some("failover"))
    }
}

impl Setting for ShutdownOptions {
    type Rule = ();
    const MANY: bool = true;

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let mut options = ShutdownOptions::default();
        for word in words {
            match word.to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => options.save = true,
                b"nosave" => options.nosave = true,
                b"now" => options.now = true,
                b"force" => options.force = true,
                b"failover" => options.failover = true,
                _ => return Err(none_of(Self::NAMES.into_iter())),
            }
        }
        if words.is_empty() {
            return Err(none_of(Self::NAMES.into_iter()));
        }
        if options.save && options.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        *self = options;
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        let set: Vec<&str> = self.set().collect();
        if set.is_empty() { b"default".to_vec() } else { set.join(" ").into_bytes() }
    }

    fn written(&self, default: &Self, (): (), name: &str) -> Written {
        Written::line(name, &self.text(()), self != default)
    }

    fn accepts((): ()) -> String {
        format!("any of {}", list(Self::NAMES.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|w| w.as_bytes().to_vec()).collect()
    }

    #[test]
    fn every_name_is_read_as_what_it_stands_for() {
        for (name, value) in MaxmemoryPolicy::NAMES {
            let mut read = MaxmemoryPolicy::NoEviction;
            read.assign(&words(&name.to_uppercase()), (), Manner::Replace).unwrap();
            assert_eq!(read, *value);
            assert_eq!(read.name(), *name);
        }
    }

    #[test]
    fn the_first_of_two_names_is_printed() {
        let mut read = OomScoreAdj::No;
        read.assign(&words("relative"), (), Manner::Replace).unwrap();
        assert_eq!(read.text(()), b"yes");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = AppendFsync::No.clone().assign(&words("x"), (), Manner::Replace).unwrap_err();
        assert_eq!(error, "argument(s) must be one of the following: everysec, always, no");
    }

    #[test]
    fn shutdown_options_are_a_set() {
        let mut options = ShutdownOptions::default();
        assert_eq!(options.text(()), b"default");
        options.assign(&words("failover now FORCE save"), (), Manner::Replace).unwrap();
        assert_eq!(options.text(()), b"save now force failover");
        let before = options;
        assert_eq!(
            options.assign(&words("save nosave"), (), Manner::Replace),
            Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into())
        );
        let names = "argument(s) must be one of the following: default, save, nosave, now, force";
        assert_eq!(options.assign(&words("save x"), (), Manner::Replace), Err(names.into()));
        assert_eq!(options.assign(&[], (), Manner::Replace), Err(names.into()));
        assert_eq!(options, before);
    }
}
