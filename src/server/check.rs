//! `--check-rdb` and `--check-aof`: whether a file can be read to its end, without a server.
//!
//! What must stay true: nothing is changed but what `--fix` asks for, and that is only ever cut off behind the last
//! whole command of the last file.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use crate::config::table::Config;
use crate::persist::aof::manifest::Manifest;
use crate::persist::aof::records::{self, Reason, Records};
use crate::persist::disk;
use crate::persist::rdb::file::{self, Record};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::value::Limits;
use crate::persist::rdb::{self, Dialect};

/// What was found in a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    keys: u64,
    volatile: u64,
    commands: u64,
    /// How far it is whole.
    whole: u64,
}

/// Checks a snapshot; says what it found.
pub fn rdb(args: &[Vec<u8>]) -> ExitCode {
    let [path] = args else {
        eprintln!("Usage: --check-rdb <file>");
        return ExitCode::FAILURE;
    };
    let path = Path::new(OsStr::from_bytes(path));
    println!("[offset 0] Checking RDB file {}", path.display());
    match check_snapshot_file(path) {
        Ok(found) => {
            println!("[offset {}] \\o/ RDB looks OK! \\o/", found.whole);
            println!("[info] {} keys read", found.keys);
            println!("[info] {} expires", found.volatile);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("--- RDB ERROR DETECTED ---");
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check_snapshot_file(path: &Path) -> Result<Found, String> {
    let Some((mut file, len)) = disk::open(path).map_err(|error| error.to_string())? else {
        return Err("There is no such file".into());
    };
    let mut found = Found::default();
    let mut reader = Reader::new(&mut file);
    read_snapshot(&mut reader, &mut found).map_err(|error| error.to_string())?;
    found.whole = reader.offset();
    if found.whole == len { Ok(found) } else { Err(format!("{} bytes behind the end", len - found.whole)) }
}

fn read_snapshot(reader: &mut Reader<'_>, found: &mut Found) -> rdb::Result<()> {
    let config = Config::default();
    let limits = Limits { config: &config, dialect: Dialect::Redis, now_ms: None };
    let mut records = file::Records::new(reader, limits, true)?;
    while let Some(record) = records.next()? {
        if let Record::Key(_, about, _) = record {
            found.keys += 1;
            found.volatile += u64::from(about.deadline.is_some());
        }
    }
    Ok(())
}

/// Checks an append only file: a manifest with all that it names, or one file; says what it found.
pub fn aof(args: &[Vec<u8>]) -> ExitCode {
    let (fix, path) = match args {
        [path] => (false, path),
        [fix, path] if fix == b"--fix" => (true, path),
        _ => {
            eprintln!("Usage: --check-aof [--fix] <manifest or file>");
            return ExitCode::FAILURE;
        }
    };
    match check_log(Path::new(OsStr::from_bytes(path)), fix) {
        Ok(()) => {
            println!("All AOF files and manifest are valid");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check_log(path: &Path, fix: bool) -> Result<(), String> {
    let mut names = vec![path.to_owned()];
    if path.extension() == Some(OsStr::new("manifest")) {
        let text = disk::read_or_empty(path).map_err(|error| error.to_string())?;
        let manifest = Manifest::parse(&text).map_err(|error| error.to_string())?;
        let beside = |name: &[u8]| path.with_file_name(OsStr::from_bytes(name));
        names = manifest.parts().map(|part| beside(&part.name)).collect();
    }
    for (i, name) in names.iter().enumerate() {
        let (found, fault) = check_log_file(name)?;
        let about = format!("{} ({} keys, {} commands)", name.display(), found.keys, found.commands);
        match fault {
            None => println!("AOF {about} is valid"),
            Some(reason) => {
                println!("AOF {about} is not: {reason} after offset {}", found.whole);
                if !fix || i + 1 < names.len() {
                    return Err("AOF is not valid. Use the --fix option to try fixing it.".into());
                }
                disk::truncate(name, found.whole).map_err(|error| error.to_string())?;
                println!("Successfully truncated AOF {} to {} bytes", name.display(), found.whole);
            }
        }
    }
    Ok(())
}

/// What is in a file, and what is wrong behind that.
fn check_log_file(path: &Path) -> Result<(Found, Option<&'static str>), String> {
    let say = |error: io::Error| error.to_string();
    let Some((mut file, _)) = disk::open(path).map_err(say)? else {
        return Err(format!("There is no file {}", path.display()));
    };
    let mut found = Found::default();
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(5).read_to_end(&mut head).map_err(say)?;
    let is_snapshot = [&b"REDIS"[..], b"VALKE"].contains(&&head[..]);
    let len = head.len() as u64;
    let mut source = head.as_slice().chain(&mut file);
    let (rest, offset) = if is_snapshot {
        let mut reader = Reader::new(&mut source);
        read_snapshot(&mut reader, &mut found).map_err(|error| format!("{}: {error}", path.display()))?;
        (reader.rest().to_vec(), reader.offset() + reader.rest().len() as u64)
    } else {
        source.by_ref().take(len).read_to_end(&mut Vec::new()).map_err(say)?;
        (head.clone(), len)
    };
    let mut records = Records::new(&mut source, rest, offset);
    let mut transaction = None;
    let fault = loop {
        let start = records.whole();
        let (mut text, mut spans) = (Vec::new(), Vec::new());
        match records.next(&mut text, &mut spans) {
            Ok(Some(records::Record::Command(_))) => {
                found.commands += 1;
                let name = spans.first().map_or(&b""[..], |span| span.of(&text));
                if name.eq_ignore_ascii_case(b"MULTI") {
                    transaction.get_or_insert(start);
                } else if name.eq_ignore_ascii_case(b"EXEC") {
                    transaction = None;
                }
            }
            Ok(Some(records::Record::Time(_))) => {}
            Ok(None) => break transaction.map(|_| "a transaction without its end"),
            Err(fault) => match fault.reason {
                Reason::Truncated => break Some("it ends in the midst of a command"),
                Reason::Format => break Some("there is no command"),
                Reason::Io(error) => return Err(say(error)),
            },
        }
    };
    found.whole = transaction.unwrap_or(records.whole());
    Ok((found, fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_log_is_whole_up_to_where_it_is_cut_off() {
        let dir = std::env::temp_dir().join(format!("spinel-check-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (manifest, log) = (dir.join("a.manifest"), dir.join("a.1.incr.aof"));
        fs::write(&manifest, "file a.1.incr.aof seq 1 type i\n").unwrap();
        fs::write(&log, "*1\r\n$4\r\nPING\r\n*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nPI").unwrap();
        assert!(check_log(&manifest, false).is_err());
        assert_eq!(fs::metadata(&log).unwrap().len(), 39);
        check_log(&manifest, true).unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"*1\r\n$4\r\nPING\r\n");
        check_log(&log, false).unwrap();
        let snapshot = dir.join("a.rdb");
        fs::write(&snapshot, b"REDIS0003\xfe\x00\x00\x01a\x01b\xff").unwrap();
        assert_eq!(check_snapshot_file(&snapshot).unwrap().keys, 1);
        fs::write(&snapshot, b"REDIS0003\xfe\x00\x00\x01a\x01b").unwrap();
        assert!(check_snapshot_file(&snapshot).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
