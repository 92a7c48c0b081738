//! `--check-rdb` and `--check-aof`: whether a file can be read to its end, without a server.
//!
//! What must stay true: nothing is changed but what `--fix` and `--truncate-to-timestamp` ask for, and that is only ever
//! cut off between commands of the last file.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use crate::config::table::Config;
use crate::persist::aof::manifest::{Manifest, Part};
use crate::persist::aof::records::{self, Reason, Records};
use crate::persist::disk::{self, plain};
use crate::persist::rdb::file::{self, Record};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::value::Limits;
use crate::persist::rdb::{self, Dialect};
use crate::stdx::number::parse_i64;

/// So much of a file is looked at to see whether it is a manifest.
const HEAD_BYTES: u64 = 64 * 1024;

/// What was found in a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    keys: u64,
    volatile: u64,
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
            tell_snapshot(&found);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("--- RDB ERROR DETECTED ---");
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn tell_snapshot(found: &Found) {
    println!("[offset {}] \\o/ RDB looks OK! \\o/", found.whole);
    println!("[info] {} keys read", found.keys);
    println!("[info] {} expires", found.volatile);
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

/// What is to be done with an append only file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// To be looked at.
    Look,
    /// Cut off behind its last whole command, where it is broken.
    Fix,
    /// Cut off before what was written after this time: Unix seconds.
    UpTo(i64),
}

/// Checks an append only file, a manifest with all that it names or one file, and says what it found, in the words of
/// redis-check-aof.
pub fn aof(args: &[Vec<u8>]) -> ExitCode {
    let (aim, path) = match args {
        [path] => (Aim::Look, path),
        [option, path] if option == b"--fix" => (Aim::Fix, path),
        [option, time, path] if option == b"--truncate-to-timestamp" => {
            let Some(time_s) = parse_i64(time).filter(|time_s| *time_s > 0) else {
                println!("Invalid timestamp, aborting...");
                return ExitCode::FAILURE;
            };
            (Aim::UpTo(time_s), path)
        }
        _ => {
            println!("Usage: --check-aof [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>");
            return ExitCode::FAILURE;
        }
    };
    match check_log(Path::new(OsStr::from_bytes(path)), aim, &mut asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Asks on the terminal whether to go on.
fn asked() -> bool {
    print!("Continue? [y/N]: ");
    let mut answer = String::new();
    // Who cannot be asked has not said yes.
    io::stdout().flush().and_then(|()| io::stdin().read_line(&mut answer)).is_ok()
        && answer.trim_start().starts_with(['y', 'Y'])
}

fn check_log(path: &Path, aim: Aim, may_cut: &mut dyn FnMut() -> bool) -> Result<(), String> {
    let mut lines = 1;
    if !is_manifest(path).map_err(|error| format!("Cannot open file {}: {}", path.display(), plain(&error)))? {
        println!("Start checking Old-Style AOF");
        return check_part(path, &path.display().to_string(), "AOF", aim, true, &mut lines, may_cut);
    }
    println!("Start checking Multi Part AOF");
    let text = disk::read_or_empty(path).map_err(|error| error.to_string())?;
    let manifest =
        Manifest::parse(&text).map_err(|error| format!("\n*** FATAL AOF MANIFEST FILE ERROR ***\n{error}"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = |part: &Part| directory.join(OsStr::from_bytes(&part.name));
    let mut check = |part: &Part, label: &str, is_last: bool| {
        let name = String::from_utf8_lossy(&part.name);
        check_part(&place(part), &name, label, aim, is_last, &mut lines, may_cut)
    };
    if let Some(base) = &manifest.base {
        let is_snapshot = starts_as_snapshot(&place(base));
        println!("Start to check BASE AOF ({} format).", if is_snapshot { "RDB" } else { "RESP" });
        check(base, "BASE AOF", manifest.increments.is_empty())?;
    }
    if let Some((last, others)) = manifest.increments.split_last() {
        println!("Start to check INCR files.");
        others.iter().try_for_each(|part| check(part, "INCR AOF", false))?;
        check(last, "INCR AOF", true)?;
    }
    println!("All AOF files and manifest are valid");
    Ok(())
}

/// Whether a file is a manifest: its first line that is no comment names a file.
fn is_manifest(path: &Path) -> io::Result<bool> {
    let (file, _) = disk::open(path)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    let first = head.split(|byte| *byte == b'\n').find(|line| !line.starts_with(b"#"));
    Ok(first.is_some_and(|line| line.starts_with(b"file ")))
}

fn starts_as_snapshot(path: &Path) -> bool {
    let mut head = Vec::new();
    // A file that cannot be read is told of by who reads it.
    let read = disk::open(path).map(|file| file.map(|(file, _)| file.take(5).read_to_end(&mut head)));
    read.is_ok() && is_snapshot(&head)
}

fn is_snapshot(head: &[u8]) -> bool {
    [&b"REDIS"[..], b"VALKE"].contains(&head)
}

/// Checks one file, called `name`; `lines` counts over all of them.
fn check_part(
    path: &Path,
    name: &str,
    label: &str,
    aim: Aim,
    is_last: bool,
    lines: &mut u64,
    may_cut: &mut dyn FnMut() -> bool,
) -> Result<(), String> {
    let cannot = |error: &io::Error| format!("Cannot open file {}: {}", path.display(), plain(error));
    let Some((mut file, size)) = disk::open(path).map_err(|error| cannot(&error))? else {
        return Err(cannot(&io::Error::from_raw_os_error(libc::ENOENT)));
    };
    if size == 0 {
        println!("{label} {name} is empty");
        return Ok(());
    }
    let found = read_log(&mut file, name, aim, lines)?;
    match (aim, found.later) {
        (Aim::UpTo(time_s), Some(offset)) => return cut_later(path, time_s, offset, is_last),
        (Aim::UpTo(time_s), None) if !found.broken => {
            println!("Truncate nothing in AOF {name} to timestamp {time_s}");
        }
        _ => {
            let (whole, diff) = (found.whole, size.saturating_sub(found.whole));
            println!(
                "AOF analyzed: filename={name}, size={size}, ok_up_to={whole}, ok_up_to_line={lines}, diff={diff}"
            );
        }
    }
    if !found.broken {
        println!("{label} {name} is valid");
        return Ok(());
    }
    if aim != Aim::Fix {
        return Err(format!("AOF {name} is not valid. Use the --fix option to try fixing it."));
    }
    if !is_last {
        return Err(format!("Failed to truncate AOF {name} because it is not the last file"));
    }
    let diff = size.saturating_sub(found.whole);
    println!("This will shrink the AOF {name} from {size} bytes, with {diff} bytes, to {} bytes", found.whole);
    if !may_cut() {
        return Err("Aborting...".into());
    }
    disk::truncate(path, found.whole).map_err(|error| error.to_string())?;
    println!("Successfully truncated AOF {name}");
    Ok(())
}

/// Cuts off what was written after a time and begins at `offset`.
fn cut_later(path: &Path, time_s: i64, offset: u64, is_last: bool) -> Result<(), String> {
    let name = path.display();
    if offset == 0 {
        return Err(format!("AOF {name} has nothing before timestamp {time_s}, aborting..."));
    }
    if !is_last {
        return Err(format!(
            "Failed to truncate AOF {name} to timestamp {time_s} to offset {offset} because it is not the last file.\nIf you insist, please delete all files after this file according to the manifest file and delete the corresponding records in manifest file manually. Then re-run redis-check-aof."
        ));
    }
    disk::truncate(path, offset).map_err(|error| error.to_string())?;
    println!("Successfully truncated AOF {name} to timestamp {time_s}");
    Ok(())
}

/// What a file of a log has.
#[derive(Debug, Default)]
struct Log {
    /// How far it is whole.
    whole: u64,
    /// Whether something follows that is not.
    broken: bool,
    /// Where what is later than wanted begins.
    later: Option<u64>,
}

fn read_log(file: &mut (impl Read + Send), name: &str, aim: Aim, lines: &mut u64) -> Result<Log, String> {
    let say = |error: io::Error| error.to_string();
    let mut head = Vec::new();
    Read::by_ref(file).take(5).read_to_end(&mut head).map_err(say)?;
    let len = head.len() as u64;
    let mut source = head.as_slice().chain(file);
    let (rest, offset) = if is_snapshot(&head) {
        println!("[offset 0] Checking RDB file {name}");
        let mut reader = Reader::new(&mut source);
        let mut found = Found::default();
        read_snapshot(&mut reader, &mut found).map_err(|error| {
            format!("--- RDB ERROR DETECTED ---\n{error}\nRDB preamble of AOF file is not sane, aborting.")
        })?;
        found.whole = reader.offset();
        tell_snapshot(&found);
        println!("RDB preamble is OK, proceeding with AOF tail...");
        (reader.rest().to_vec(), reader.offset() + reader.rest().len() as u64)
    } else {
        source.by_ref().take(len).read_to_end(&mut Vec::new()).map_err(say)?;
        (head.clone(), len)
    };
    let mut records = Records::new(&mut source, rest, offset);
    let (mut transaction, mut log) = (None, Log::default());
    loop {
        let start = records.whole();
        let (mut text, mut spans) = (Vec::new(), Vec::new());
        match records.next(&mut text, &mut spans) {
            Ok(Some(records::Record::Command(args))) => {
                *lines += 1 + 2 * args as u64;
                let command = spans.first().map_or(&b""[..], |span| span.of(&text));
                if command.eq_ignore_ascii_case(b"MULTI") {
                    transaction.get_or_insert(start);
                } else if command.eq_ignore_ascii_case(b"EXEC") {
                    transaction = None;
                }
            }
            Ok(Some(records::Record::Time(time_s))) => {
                if matches!(aim, Aim::UpTo(most_s) if time_s > most_s) {
                    log.later = Some(start);
                    break;
                }
            }
            Ok(None) => {
                if let Some(start) = transaction {
                    println!("0x{start:16x}: Reached EOF before reading EXEC for MULTI");
                    log.broken = true;
                }
                break;
            }
            Err(fault) => {
                // The lines of a command before the one that is not whole.
                *lines += 2 * spans.len() as u64;
                log.broken = true;
                match fault.reason {
                    Reason::Truncated => println!("0x{:16x}: The file ends in the midst of a command", fault.whole),
                    Reason::Format => println!("AOF {name} format error"),
                    Reason::Io(error) => return Err(say(error)),
                }
                break;
            }
        }
    }
    log.whole = transaction.unwrap_or(records.whole());
    Ok(log)
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
        assert!(check_log(&manifest, Aim::Look, &mut || true).is_err());
        assert_eq!(check_log(&manifest, Aim::Fix, &mut || false), Err("Aborting...".into()));
        assert_eq!(fs::metadata(&log).unwrap().len(), 39);
        check_log(&manifest, Aim::Fix, &mut || true).unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"*1\r\n$4\r\nPING\r\n");
        check_log(&log, Aim::Look, &mut || false).unwrap();
        // Redis 7.0 takes this for a manifest.
        fs::write(&log, "*1\r\n$23\r\nfile whole seq 1 type b\r\n").unwrap();
        check_log(&log, Aim::Look, &mut || false).unwrap();
        let snapshot = dir.join("a.rdb");
        fs::write(&snapshot, b"REDIS0003\xfe\x00\x00\x01a\x01b\xff").unwrap();
        assert_eq!(check_snapshot_file(&snapshot).unwrap().keys, 1);
        fs::write(&snapshot, b"REDIS0003\xfe\x00\x00\x01a\x01b").unwrap();
        assert!(check_snapshot_file(&snapshot).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
