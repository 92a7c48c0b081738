//! Reading a configuration: lines of text, included files, and the command line.
//!
//! The file, standard input and the options of the command line are one text, read line by line, so
//! that what comes later wins and an error can name its line. Nothing is opened here: a [`Source`]
//! does that.

use super::setting::Manner;
use super::table::{Config, FORGOTTEN, FileLine, Place, find};
use crate::stdx::glob::{Case, matches};
use crate::stdx::words::{quoted, split_words};
use std::collections::HashSet;
use std::fmt;
use std::io;

/// Files that include each other are followed this deep.
const MAX_INCLUDE_DEPTH: usize = 32;

/// Where configuration text comes from.
pub trait Source {
    /// The contents of the file at `path`.
    fn read(&mut self, path: &[u8]) -> io::Result<Vec<u8>>;

    /// The names in the directory at `path`, in any order; `.` is the current one.
    fn list(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>>;

    /// Standard input to its end.
    fn stdin(&mut self) -> io::Result<Vec<u8>>;
}

/// Why a configuration could not be read.
#[derive(Debug)]
pub enum LoadError {
    /// A line is wrong.
    Line {
        /// Where it is.
        place: Place,
        /// What is wrong with it.
        reason: String,
    },
    /// The lines contradict each other.
    Whole(&'static str),
    /// A file, or standard input, could not be read.
    File {
        /// Its path, as it was given; `-` for standard input.
        path: Vec<u8>,
        /// What the system says.
        error: io::Error,
    },
}

impl LoadError {
    /// An error in `place`, for lines that the caller carries out, such as those of users.
    pub fn at(place: &Place, reason: impl Into<String>) -> LoadError {
        LoadError::Line { place: place.clone(), reason: reason.into() }
    }
}

impl fmt::Display for LoadError {
    /// What Redis prints after the line with `FATAL CONFIG FILE ERROR`; for a file that cannot be read,
    /// its line in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Line { place, reason } => {
                writeln!(f, "Reading the configuration file, at line {}", place.line)?;
                writeln!(f, ">>> '{}'", String::from_utf8_lossy(&place.text))?;
                f.write_str(reason)
            }
            LoadError::Whole(reason) => f.write_str(reason),
            LoadError::File { path, error } => {
                write!(f, "Fatal error, can't open config file '{}': ", String::from_utf8_lossy(path))?;
                // The system's words alone, without the number that std appends.
                let text = error.to_string();
                f.write_str(text.split(" (os error").next().unwrap_or(&text))
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// What the arguments of the program ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    /// The configuration file, if the first argument names one.
    pub file: Option<Vec<u8>>,
    /// Whether standard input is to be read too.
    pub stdin: bool,
    /// The other arguments as configuration text.
    pub options: Vec<u8>,
}

/// What was read, and from where.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What holds where nothing is said.
    pub defaults: Config,
    /// The file that CONFIG REWRITE writes to, as it was given.
    pub file: Option<Vec<u8>>,
}

/// Reads the configuration that `args` (without the name of the program) ask for, where nothing else is said `defaults`.
///
/// `--help`, `--version` and Sentinel mode are the caller's business and must not be among them.
pub fn from_args(defaults: Config, args: &[Vec<u8>], source: &mut dyn Source) -> Result<Loaded, LoadError> {
    let arguments = Arguments::parse(args);
    let mut loader = Loader::new(defaults.clone(), source);
    let mut text = Vec::new();
    if let Some(path) = &arguments.file {
        text = loader.read(path)?;
    }
    if arguments.stdin {
        let input = loader.source.stdin();
        text.extend(input.map_err(|error| LoadError::File { path: b"-".to_vec(), error })?);
    }
    if !args.is_empty() {
        // The line break is there even in front of nothing: line numbers in errors count it.
        text.push(b'\n');
        text.extend_from_slice(&arguments.options);
    }
    loader.lines(&text, 0)?;
    Ok(Loaded { config: loader.finish()?, defaults, file: arguments.file })
}

/// Reads a configuration from `text` alone.
pub fn from_text(text: &[u8], source: &mut dyn Source) -> Result<Config, LoadError> {
    let mut loader = Loader::new(Config::default(), source);
    loader.lines(text, 0)?;
    loader.finish()
}

impl Arguments {
    /// Turns arguments into configuration text.
    ///
    /// An argument that begins with `--` starts a new line, unless the name before it still has no
    /// value: the first value after a name is a value whatever it looks like. Only `--save` may be
    /// left without one, which then is the empty value.
    pub fn parse(args: &[Vec<u8>]) -> Arguments {
        let mut parsed = Arguments::default();
        let mut rest = args;
        if let [first, others @ ..] = args
            && !first.starts_with(b"-")
        {
            parsed.file = Some(first.clone());
            rest = others;
        }
        let options = &mut parsed.options;
        let mut awaits_value = false;
        for (at, arg) in rest.iter().enumerate() {
            let next = rest.get(at + 1);
            let first_of_all = at == 0 && parsed.file.is_none();
            if arg == b"-" && (first_of_all || next.is_none()) {
                parsed.stdin = true;
            } else if arg.starts_with(b"--") && !awaits_value {
                if !options.is_empty() {
                    options.push(b'\n');
                }
                options.extend_from_slice(&arg[2..]);
                options.push(b' ');
                awaits_value = split_words(arg).is_some_and(|words| words.len() == 1);
                if arg.eq_ignore_ascii_case(b"--save") && next.is_none_or(|next| next.starts_with(b"--")) {
                    options.extend_from_slice(b"\"\"");
                    awaits_value = false;
                }
            } else {
                options.extend(quoted(arg));
                options.push(b' ');
                awaits_value = false;
            }
        }
        parsed
    }
}

/// A configuration while it is being read.
struct Loader<'a> {
    source: &'a mut dyn Source,
    config: Config,
    /// Directives that were mentioned: `save` adds up over lines, included ones too.
    mentioned: HashSet<&'static str>,
    users: HashSet<Vec<u8>>,
}

impl<'a> Loader<'a> {
    fn new(config: Config, source: &'a mut dyn Source) -> Loader<'a> {
        Loader { source, config, mentioned: HashSet::new(), users: HashSet::new() }
    }

    fn finish(mut self) -> Result<Config, LoadError> {
        if self.config.cluster_enabled && self.config.replicaof.is_some() {
            return Err(LoadError::Whole("replicaof directive not allowed in cluster mode"));
        }
        self.config.settle();
        Ok(self.config)
    }

    fn lines(&mut self, text: &[u8], depth: usize) -> Result<(), LoadError> {
        for (at, line) in text.split(|b| *b == b'\n').enumerate() {
            let line = trim(line);
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            let place = || Place { line: at + 1, text: line.to_vec() };
            let words =
                split_words(line).ok_or_else(|| LoadError::at(&place(), "Unbalanced quotes in configuration line"))?;
            let Some((name, values)) = words.split_first() else { continue };
            if name.eq_ignore_ascii_case(b"include")
                && let [path] = values
            {
                if depth == MAX_INCLUDE_DEPTH {
                    return Err(LoadError::at(&place(), "Files include each other too deeply"));
                }
                let included = self.read(path)?;
                self.lines(&included, depth + 1)?;
                continue;
            }
            self.line(name, values, &place).map_err(|reason| LoadError::at(&place(), reason))?;
        }
        Ok(())
    }

    fn line(&mut self, name: &[u8], values: &[Vec<u8>], place: &dyn Fn() -> Place) -> Result<(), String> {
        if let Some((directive, _)) = find(name) {
            let manner = if self.mentioned.contains(directive.name) { Manner::Add } else { Manner::Replace };
            let split;
            let values = match values {
                // One quoted argument may hold all the words: that is how they come from a shell.
                [all] if directive.many && !all.is_empty() => {
                    split = split_words(all).ok_or("Unbalanced quotes in configuration line")?;
                    &split
                }
                values => values,
            };
            if !directive.many && values.len() != 1 {
                return Err("wrong number of arguments".into());
            }
            directive.assign(&mut self.config, values, manner)?;
            self.mentioned.insert(directive.name);
            return Ok(());
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        match (name.as_str(), values) {
            (forgotten, [_]) if FORGOTTEN.contains(&forgotten) => return Ok(()),
            ("rename-command", [_, _]) | ("loadmodule", [_, ..]) => {}
            ("user", [user, ..]) => {
                if !self.users.insert(user.clone()) {
                    let user = String::from_utf8_lossy(user);
                    let reason = "Duplicate user found. A user can only be defined once in config files";
                    return Err(format!("Error in user declaration '{user}': {reason}"));
                }
            }
            (module, values) if module.contains('.') => {
                if values.is_empty() {
                    return Err("Module config specified without value".into());
                }
            }
            ("sentinel", [_, ..]) => return Err("sentinel directive while not in sentinel mode".into()),
            _ => return Err("Bad directive or wrong number of arguments".into()),
        }
        self.config.lines.push(FileLine { directive: name, words: values.to_vec(), place: place() });
        Ok(())
    }

    /// The file at `path`, or all that match it one after the other; a pattern may match none.
    fn read(&mut self, path: &[u8]) -> Result<Vec<u8>, LoadError> {
        let paths = if is_pattern(path) { self.matching(path) } else { vec![path.to_vec()] };
        let mut text = Vec::new();
        for path in paths {
            text.extend(self.source.read(&path).map_err(|error| LoadError::File { path, error })?);
        }
        Ok(text)
    }

    /// The paths that `pattern` matches, in order. A wildcard does not match `/`, nor a dot in front.
    fn matching(&mut self, pattern: &[u8]) -> Vec<Vec<u8>> {
        let mut found: Vec<Vec<u8>> = vec![if pattern.starts_with(b"/") { b"/".to_vec() } else { Vec::new() }];
        for part in pattern.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for folder in found {
                if !is_pattern(part) {
                    next.push(join(&folder, part));
                    continue;
                }
                let names = self.source.list(if folder.is_empty() { b"." } else { &folder });
                let fits = |name: &Vec<u8>| {
                    (!name.starts_with(b".") || part.starts_with(b".")) && matches(part, name, Case::Sensitive)
                };
                let mut names: Vec<Vec<u8>> = names.unwrap_or_default().into_iter().filter(fits).collect();
                names.sort_unstable();
                next.extend(names.iter().map(|name| join(&folder, name)));
            }
            found = next;
        }
        found
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if folder.is_empty() || folder.ends_with(b"/") { b"" } else { b"/" };
    [folder, slash, name].concat()
}

fn is_pattern(path: &[u8]) -> bool {
    path.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// A line without blanks at its ends.
pub(super) fn trim(line: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let start = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let end = line.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &line[start..end]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::special::DataMemory;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Files in memory.
    #[derive(Default)]
    pub struct Files {
        pub files: BTreeMap<&'static str, &'static str>,
        pub stdin: Vec<u8>,
    }

    impl Files {
        pub fn new(files: &[(&'static str, &'static str)]) -> Files {
            Files { files: files.iter().copied().collect(), stdin: Vec::new() }
        }
    }

    impl Source for Files {
        fn read(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
            let path = std::str::from_utf8(path).unwrap();
            let missing = || io::Error::from_raw_os_error(2);
            self.files.get(path).map(|text| text.as_bytes().to_vec()).ok_or_else(missing)
        }

        fn list(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
            let prefix = match path {
                b"." => String::new(),
                path => format!("{}/", std::str::from_utf8(path).unwrap().trim_end_matches('/')),
            };
            let inside = self.files.keys().rev().filter_map(|file| file.strip_prefix(&prefix));
            let mut names: Vec<_> = inside.map(|rest| rest.split('/').next().unwrap().as_bytes().to_vec()).collect();
            names.dedup();
            Ok(names)
        }

        fn stdin(&mut self) -> io::Result<Vec<u8>> {
            Ok(self.stdin.clone())
        }
    }

    fn load(args: &[&str], files: &[(&'static str, &'static str)]) -> Result<Config, String> {
        let args: Vec<Vec<u8>> = args.iter().map(|a| a.as_bytes().to_vec()).collect();
        from_args(Config::default(), &args, &mut Files::new(files)).map(|l| l.config).map_err(|e| e.to_string())
    }

    fn value(config: &Config, name: &str) -> String {
        String::from_utf8(find(name.as_bytes()).unwrap().0.text(config)).unwrap()
    }

    /// The line that is refused, quoted, and why.
    fn refused(args: &[&str]) -> (String, String) {
        let error = load(args, &[]).unwrap_err();
        let mut lines = error.lines().skip_while(|line| !line.starts_with(">>> "));
        (lines.next().unwrap()[4..].to_owned(), lines.next().unwrap().to_owned())
    }

    #[test]
    fn nothing_gives_the_defaults() {
        assert_eq!(load(&[], &[]).unwrap(), Config::default());
    }

    #[test]
    fn options_override_the_file() {
        let files = [("a.conf", "port 1\n# port 2\n\n  MAXMEMORY\t10mb\r\nloglevel debug\n")];
        let config = load(&["a.conf", "--port", "3"], &files).unwrap();
        assert_eq!((config.port, config.maxmemory), (3, DataMemory::Bytes(10 << 20)));
        assert_eq!(value(&config, "loglevel"), "debug");
    }

    #[test]
    fn standard_input_comes_between_file_and_options() {
        let mut files = Files::new(&[("a", "port 1\ntimeout 1\nhz 11\n")]);
        files.stdin = b"timeout 2\nhz 12\n".to_vec();
        let args = ["a", "--hz", "13", "-"].map(|a| a.as_bytes().to_vec());
        let loaded = from_args(Config::default(), &args, &mut files).unwrap();
        assert_eq!(loaded.file.as_deref(), Some(&b"a"[..]));
        assert_eq!((loaded.config.port, loaded.config.timeout, loaded.config.hz), (1, 2, 13));
        let loaded = from_args(Config::default(), &[b"-".to_vec()], &mut files).unwrap();
        assert_eq!((loaded.file, loaded.config.hz), (None, 12));
    }

    #[test]
    fn defaults_are_those_of_the_server_that_is_stood_in_for() {
        let lazy = |program| value(&Config::for_program(program), "lazyfree-lazy-expire");
        for redis in ["spinel-server", "./redis-server", "/opt/valkey/bin/redis-server"] {
            assert_eq!(lazy(redis), "no", "{redis}");
        }
        assert_eq!(lazy("src/valkey-server"), "yes");
        assert_eq!(value(&Config::for_program("valkey-server"), "repl-backlog-size"), "10485760");
    }

    #[test]
    fn a_name_and_its_value_may_share_an_argument() {
        let config = load(&["--maxmemory 700mb", "--maxmemory-policy 'volatile-lru'"], &[]).unwrap();
        assert_eq!(config.maxmemory, DataMemory::Bytes(700 << 20));
        assert_eq!(value(&config, "maxmemory-policy"), "volatile-lru");
    }

    #[test]
    fn the_first_name_after_a_file_may_lack_its_dashes() {
        let config = load(&["a.conf", "loglevel", "verbose", "--maxmemory '7mb'"], &[("a.conf", "")]).unwrap();
        assert_eq!((value(&config, "loglevel").as_str(), config.maxmemory), ("verbose", DataMemory::Bytes(7 << 20)));
    }

    #[test]
    fn the_first_value_may_begin_with_dashes() {
        let config = load(&["--proc-title-template", "--my--title", "--loglevel", "verbose"], &[]).unwrap();
        assert_eq!(value(&config, "proc-title-template"), "--my--title");
        assert_eq!(value(&config, "loglevel"), "verbose");
        let config = load(&["--proc-title-template --my--title", "--loglevel verbose"], &[]).unwrap();
        assert_eq!(value(&config, "proc-title-template"), "--my--title");
    }

    #[test]
    fn save_may_stand_without_a_value() {
        for args in [
            &["--save", "--loglevel", "verbose"][..],
            &["--loglevel", "verbose", "--save"],
            &["--save", "", "--loglevel", "verbose"],
            &["--loglevel", "verbose", "--save", ""],
            &["--proc-title-template", "--save", "--save", "", "--loglevel", "verbose"],
        ] {
            let config = load(args, &[]).unwrap();
            assert_eq!((value(&config, "save").as_str(), value(&config, "loglevel").as_str()), ("", "verbose"));
        }
    }

    #[test]
    fn save_on_the_command_line_adds_to_the_file() {
        let files = [("a", "save 900 1\n")];
        assert_eq!(value(&load(&["a", "--save", "100", "100"], &files).unwrap(), "save"), "900 1 100 100");
        assert_eq!(value(&load(&["a", "--save", ""], &files).unwrap(), "save"), "");
        assert_eq!(value(&load(&["--save", "100 100"], &[]).unwrap(), "save"), "100 100");
    }

    #[test]
    fn several_words_may_come_as_one() {
        let args = ["--shutdown-on-sigint", "nosave", "force", "now", "--shutdown-on-sigterm", "nosave force"];
        let config = load(&args, &[]).unwrap();
        assert_eq!(value(&config, "shutdown-on-sigint"), "nosave now force");
        assert_eq!(value(&config, "shutdown-on-sigterm"), "nosave force");
    }

    #[test]
    fn refused_options_are_shown_as_lines() {
        let of = "argument(s) must be one of the following";
        for (args, line, reason) in [
            (&["--invalid"][..], "'invalid'", "Bad directive or wrong number of arguments"),
            (&["--port"], "'port'", "wrong number of arguments"),
            (&["--port", "6380", "--loglevel"], "'loglevel'", "wrong number of arguments"),
            (&["--port", "6379", "6380"], "'port \"6379\" \"6380\"'", "wrong number of arguments"),
            (&["--port", "--loglevel", "verbose"], "'port \"--loglevel\" \"verbose\"'", "wrong number of arguments"),
            (
                &["--port", "--bla", "--loglevel", "x"],
                "'port \"--bla\"'",
                "argument couldn't be parsed into an integer",
            ),
            (&["--logfile", "--my", "--loglevel", "--bla"], "'loglevel \"--bla\"'", of),
            (&["--shutdown-on-sigint"], "'shutdown-on-sigint'", of),
            (&["--shutdown-on-sigint", "now force", "--shutdown-on-sigterm"], "'shutdown-on-sigterm'", of),
            (
                &["--replicaof", "127.0.0.1", "abc"],
                "'replicaof \"127.0.0.1\" \"abc\"'",
                "Invalid master port (Invalid primary port)",
            ),
            (&["--replicaof", "--127.0.0.1", "--abc"], "'replicaof \"--127.0.0.1\"'", "wrong number of arguments"),
            (&["--save", "10"], "'save \"10\"'", "Invalid save parameters"),
            (&["--foo.bar"], "'foo.bar'", "Module config specified without value"),
            (&["--maxmemory \"1"], "'maxmemory \"1'", "Unbalanced quotes in configuration line"),
        ] {
            let (shown, why) = refused(args);
            assert_eq!(shown, line);
            assert!(why.starts_with(reason), "{why}");
        }
    }

    #[test]
    fn errors_name_their_line() {
        let error = load(&["--port", "abc"], &[]).unwrap_err();
        assert_eq!(
            error,
            "Reading the configuration file, at line 2\n>>> 'port \"abc\"'\nargument couldn't be parsed into an integer"
        );
        let error = load(&["a"], &[("a", "port 1\n\n  nosuch  a b \n")]).unwrap_err();
        assert!(error.starts_with("Reading the configuration file, at line 3\n>>> 'nosuch  a b'\nBad directive"));
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let missing = "Fatal error, can't open config file '/none': No such file or directory";
        assert_eq!(load(&["/none"], &[]).unwrap_err(), missing);
        assert_eq!(load(&["a"], &[("a", "include /none")]).unwrap_err(), missing);
    }

    #[test]
    fn a_user_is_declared_once() {
        let (_, reason) = refused(&["--user", "a", "on", "--user", "a", "off"]);
        assert!(reason.starts_with("Error in user declaration 'a': Duplicate user found."));
        let config = load(&["--user", "a", "on", ">x y", "--user", "b"], &[]).unwrap();
        assert_eq!(config.lines[0].words, [&b"a"[..], b"on", b">x y"]);
        assert_eq!((config.lines[1].directive.as_str(), config.lines[1].place.line), ("user", 3));
    }

    #[test]
    fn included_files_stand_where_they_are_named() {
        let files = [
            ("/etc/a", "port 1\ninclude /etc/d/*.conf\ninclude /etc/none/*\ntimeout 9\n"),
            ("/etc/d/2.conf", "timeout 2\nport 2\nsave 2 2\n"),
            ("/etc/d/1.conf", "port 1\nhz 20\nsave 1 1\n"),
            ("/etc/d/.hidden.conf", "port 7\n"),
            ("/etc/d/3.txt", "port 8\n"),
        ];
        let config = load(&["/etc/a", "--save", "3", "3"], &files).unwrap();
        assert_eq!((config.port, config.timeout, config.hz), (2, 9, 20));
        assert_eq!(value(&config, "save"), "1 1 2 2 3 3");
    }

    #[test]
    fn files_that_include_each_other_are_refused() {
        let error = load(&["a"], &[("a", "include b"), ("b", "include a")]).unwrap_err();
        assert!(error.ends_with("Files include each other too deeply"), "{error}");
    }

    #[test]
    fn a_cluster_node_replicates_by_other_means() {
        let error = load(&["--cluster-enabled", "yes", "--replicaof", "1.1.1.1", "2"], &[]).unwrap_err();
        assert_eq!(error, "replicaof directive not allowed in cluster mode");
        assert_eq!(load(&["--cluster-enabled", "yes"], &[]).unwrap().databases, 1);
    }

    #[test]
    fn what_is_forgotten_is_accepted() {
        assert_eq!(load(&["--list-max-ziplist-entries", "5"], &[]).unwrap(), Config::default());
        assert!(load(&["--list-max-ziplist-entries", "5", "6"], &[]).is_err());
    }

    #[test]
    fn both_names_set_the_same_value() {
        for (files, expected) in [
            ([("a", "hash-max-listpack-entries 20\nhash-max-ziplist-entries 21")], 21),
            ([("a", "hash-max-ziplist-entries 20\nhash-max-listpack-entries 22")], 22),
        ] {
            assert_eq!(load(&["a"], &files).unwrap().hash_max_listpack_entries, expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_text(&text, &mut Files::default()).map_err(|e| e.to_string());
        }

        #[test]
        fn any_value_of_any_directive_is_set_or_refused(
            at in 0..crate::config::table::directives().len(), value in "[ -~]{0,12}",
        ) {
            let directive = &crate::config::table::directives()[at];
            let line = [directive.name.as_bytes(), b" ", &quoted(value.as_bytes())].concat();
            if let Ok(config) = from_text(&line, &mut Files::default()) {
                let again = [directive.name.as_bytes(), b" ", &quoted(&directive.text(&config))].concat();
                let again = from_text(&again, &mut Files::default());
                prop_assert!(directive.name == "replicaof" || directive.same(&again.unwrap(), &config));
            }
        }
    }
}
