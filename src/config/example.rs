//! redis.conf.example: every directive with its default, written from the table.

use super::setting::Written;
use super::table::{Config, Directive, FILE_DIRECTIVES, Section, State, directives};
use crate::stdx::words::quoted;

/// Lines are no longer than this, where a word does not make them so.
const WIDTH: usize = 100;

const HEAD: &str = "\
# Configuration of Spinel. Every directive stands here with its default, as a comment: take the `#`
# away and change the value.
#
#     spinel-server /path/to/redis.conf            reads this file
#     spinel-server /path/to/redis.conf --port 7   reads it, and then what follows
#     spinel-server -                              reads standard input
#
# A line is the name of a directive and its value. Words are separated by blanks; a word that holds
# blanks, or nothing, stands in quotes: double ones with escapes (\\n, \\xff), or single ones without.
# Memory is written 1k (1000 bytes), 1kb (1024), 5m, 5mb, 1g or 1gb, in any case. Of what is set
# twice the last counts, except `save`, which adds up. CONFIG GET and CONFIG SET read and change
# directives while the server runs; CONFIG REWRITE writes changes back to the file.
";

/// The text of redis.conf.example.
pub fn example() -> String {
    let mut text = String::from(HEAD);
    for section in Section::ALL {
        let known = directives().iter().filter(|d| d.section == section && !d.flags.hidden);
        let entries = known.map(directive_entry);
        let in_files = FILE_DIRECTIVES.iter().filter(|d| d.section == section);
        let in_files = in_files.map(|d| entry(d.doc, &[], d.state, &[format!("# {}", d.example)]));
        let entries: String = entries.chain(in_files).collect();
        if !entries.is_empty() {
            text += &format!("\n{:#^WIDTH$}\n{entries}", format!(" {} ", section.title()));
        }
    }
    text
}

fn directive_entry(directive: &Directive) -> String {
    let mut notes = vec![format!("Value: {}.", directive.accepts())];
    if !directive.aliases.is_empty() {
        notes.push(format!("Also known as {}.", directive.aliases.join(", ")));
    }
    if directive.flags.immutable {
        notes.push("Cannot be changed while the server runs.".into());
    }
    let lines: Vec<String> = default_lines(directive).iter().map(|line| format!("# {line}")).collect();
    entry(directive.doc(), &notes, directive.state, &lines)
}

fn entry(doc: &str, notes: &[String], state: State, lines: &[String]) -> String {
    let mut text = format!("\n{}", comment(doc));
    let mut notes = notes.to_vec();
    match state {
        State::Effective => {}
        State::Stored(capability) => {
            notes.push(format!("Kept and reported without effect, until there is: {capability}."));
        }
        State::Moot(reason) => notes.push(format!("Kept and reported without effect: {reason}.")),
    }
    if !notes.is_empty() {
        text += &format!("#\n{}", comment(&notes.join(" ")));
    }
    text += "#\n";
    text + &lines.join("\n") + "\n"
}

/// The lines that set the directive to its default.
fn default_lines(directive: &Directive) -> Vec<String> {
    let default = Config::default();
    if directive.name == "io-threads" {
        // The default depends on the machine, this file does not.
        return vec!["io-threads 4".into()];
    }
    let value = directive.text(&default);
    let plain = value.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'));
    let line = |value: Vec<u8>| format!("{} {}", directive.name, String::from_utf8_lossy(&value));
    match directive.written(&default, &default) {
        Written::Lines(lines) if lines[0].0.ends_with(&quoted(&value)) && plain && !value.is_empty() => {
            vec![line(value)]
        }
        Written::Lines(lines) => lines.iter().map(|(line, _)| String::from_utf8_lossy(line).into_owned()).collect(),
        Written::Nothing if value.is_empty() => vec![line(quoted(b""))],
        Written::Nothing => vec![line(value)],
    }
}

/// `text` in lines that begin with `# `.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
            lines += &line;
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line += word;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::from_text;
    use crate::config::load::tests::Files;

    /// Where the file is; `SPINEL_WRITE_EXAMPLE=1 cargo test example` writes it.
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/redis.conf.example");

    #[test]
    fn the_example_in_the_repository_is_that_of_the_table() {
        if std::env::var_os("SPINEL_WRITE_EXAMPLE").is_some() {
            std::fs::write(PATH, example()).unwrap();
        }
        let file = std::fs::read_to_string(PATH).unwrap();
        assert!(file == example(), "write it anew: SPINEL_WRITE_EXAMPLE=1 cargo test --lib example");
    }

    #[test]
    fn the_example_without_its_comment_signs_is_the_default() {
        let shown = directives().iter().filter(|d| !d.flags.hidden && d.name != "replicaof");
        let lines: Vec<String> = shown.flat_map(default_lines).collect();
        let text = example();
        for line in &lines {
            assert!(text.contains(&format!("\n# {line}\n")), "{line}");
        }
        let read = from_text(lines.join("\n").as_bytes(), &mut Files::default()).unwrap();
        let default = Config::default();
        assert_eq!(Config { io_threads: default.io_threads, ..read }, default);
    }

    #[test]
    fn the_example_sets_nothing_and_hides_what_is_hidden() {
        let text = example();
        assert_eq!(from_text(text.as_bytes(), &mut Files::default()).unwrap(), Config::default());
        for directive in directives() {
            assert_eq!(text.contains(&format!("\n# {} ", directive.name)), !directive.flags.hidden, "{directive:?}");
        }
    }

    #[test]
    fn no_line_of_prose_is_too_long() {
        for line in example().lines() {
            assert!(line.len() <= WIDTH || line.split_whitespace().count() == 2, "{line}");
        }
    }
}
