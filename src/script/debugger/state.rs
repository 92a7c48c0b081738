//! Where a script stands that is debugged, where it is to stop, and the lines that its client is to be told.
//!
//! Knows neither Lua nor the client: lines that are reached come in, a reason to stop comes out.

use std::mem;
use std::time::{Duration, Instant};

use crate::stdx::number::parse_i64;

/// At most so many breakpoints.
const BREAKPOINTS_MAX: usize = 64;
/// What is shown of a value or a reply, in bytes, unless the client wants more or less.
const LIMIT: usize = 256;
/// Less than this is not shown.
const LIMIT_MIN: i64 = 60;

/// Why a script stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The client goes from line to line.
    Step,
    /// There is a breakpoint here.
    Breakpoint,
    /// The script called `redis.breakpoint`.
    Asked,
    /// It has run for long without a stop.
    Overdue,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Reason::Step => "step over",
            Reason::Breakpoint => "break point",
            Reason::Asked => "redis.breakpoint() called",
            Reason::Overdue => "timeout reached, infinite loop?",
        }
    }
}

/// What Lua tells of a running script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It comes to a line.
    Line,
    /// Many instructions went by.
    Count,
}

/// A session.
#[derive(Debug)]
pub struct Debugger {
    source: Vec<Vec<u8>>,
    /// In the order they were set.
    breakpoints: Vec<i64>,
    /// The line that the script is at.
    current: i64,
    /// The script stops at the next line, and the client hears what it calls until then.
    steps: bool,
    /// `redis.breakpoint` was called since the last stop.
    asked: bool,
    /// How much is shown of values and replies; 0 for all.
    limit: usize,
    /// The client knows that it can be told how much.
    knows_limit: bool,
    /// What the client has yet to be told.
    told: Vec<Vec<u8>>,
    /// How long the script may run without a stop.
    patience: Duration,
    /// Since when it runs.
    since: Instant,
    /// What the client has said and nobody has obeyed yet.
    pub input: Vec<u8>,
}

impl Debugger {
    /// A session for a script that is about to begin: it stops at its first line. `patience` is how long it may run
    /// without a stop.
    pub fn new(text: &[u8], patience: Duration, now: Instant) -> Debugger {
        let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let source = match &text[..end] {
            b"" => Vec::new(),
            text => text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect(),
        };
        Debugger {
            source,
            breakpoints: Vec::new(),
            current: 0,
            steps: true,
            asked: false,
            limit: LIMIT,
            knows_limit: false,
            told: Vec::new(),
            patience,
            since: now,
            input: Vec::new(),
        }
    }

    /// The script comes to a line; why it stops there, if it does. The client is told of the stop.
    pub fn arrive(&mut self, line: i64, event: Event, now: Instant) -> Option<Reason> {
        self.current = line;
        let reason = if self.asked {
            Reason::Asked
        } else if self.breakpoints.contains(&line) {
            Reason::Breakpoint
        } else if self.steps {
            Reason::Step
        } else if event == Event::Count && self.is_overdue(now) {
            Reason::Overdue
        } else {
            return None;
        };
        self.steps = false;
        self.asked = false;
        self.tell(format!("* Stopped at {line}, stop reason = {}", reason.text()));
        self.tell_line(line);
        Some(reason)
    }

    /// The script goes on from a stop, to the next line or to wherever there is a reason to stop.
    pub fn go_on(&mut self, steps: bool, now: Instant) {
        self.steps = steps;
        self.begin(now);
    }

    /// Something begins to run.
    pub fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// Whether what runs has run for too long.
    pub fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.patience
    }

    /// The client is gone: nobody is left for whom to stop.
    pub fn leave_alone(&mut self) {
        self.steps = false;
        self.breakpoints.clear();
    }

    /// `redis.breakpoint` was called.
    pub fn ask_to_stop(&mut self) {
        self.asked = true;
    }

    /// The line that the script is at.
    pub fn current(&self) -> i64 {
        self.current
    }

    /// Whether the client hears what the script calls.
    pub fn narrates(&self) -> bool {
        self.steps
    }

    /// Has the client hear what is called, or no longer.
    pub fn narrate(&mut self, narrates: bool) {
        self.steps = narrates;
    }

    /// Tells the client a line.
    pub fn tell(&mut self, line: impl Into<Vec<u8>>) {
        self.told.push(line.into());
    }

    /// Tells the client a line that holds a value or a reply: no more of it than it wants to see.
    pub fn tell_value(&mut self, mut line: Vec<u8>) {
        let is_cut = self.limit != 0 && line.len() > self.limit;
        if is_cut {
            line.truncate(self.limit);
            line.extend_from_slice(b" ...");
        }
        self.tell(line);
        if is_cut && !mem::replace(&mut self.knows_limit, true) {
            self.tell("<hint> The above reply was trimmed. Use 'maxlen 0' to disable trimming.");
        }
    }

    /// Tells the client a line of the source, with marks for where the script stands and where it is to stop.
    pub fn tell_line(&mut self, line: i64) {
        let mark = match (self.current == line, self.breakpoints.contains(&line)) {
            (true, true) => "->#",
            (true, false) => "-> ",
            (false, true) => "  #",
            (false, false) => "   ",
        };
        let at = usize::try_from(line - 1).ok();
        let text = at.and_then(|at| self.source.get(at)).map_or(&b"<out of range source code line>"[..], Vec::as_slice);
        let text = [format!("{mark}{line:<3} ").as_bytes(), text].concat();
        self.tell(text);
    }

    /// Tells the client the lines around one.
    pub fn list(&mut self, around: i64, context: i64) {
        let last = i64::try_from(self.source.len()).unwrap_or(i64::MAX);
        for line in around.saturating_sub(context).max(1)..=around.saturating_add(context).min(last) {
            self.tell_line(line);
        }
    }

    /// Tells the client all lines.
    pub fn list_all(&mut self) {
        self.list(1, i64::MAX);
    }

    /// Shows breakpoints where nothing is said of any; otherwise sets those at the given lines, removes those at lines
    /// with a minus, and all of them at 0.
    pub fn mark(&mut self, lines: &[Vec<u8>]) {
        if lines.is_empty() {
            if self.breakpoints.is_empty() {
                return self.tell("No breakpoints set. Use 'b <line>' to add one.");
            }
            self.tell(format!("{} breakpoints set:", self.breakpoints.len()));
            for line in self.breakpoints.clone() {
                self.tell_line(line);
            }
        }
        for word in lines {
            match parse_i64(word) {
                None => self.tell([b"Invalid argument:'", &word[..], b"'"].concat()),
                Some(0) => {
                    self.breakpoints.clear();
                    self.tell("All breakpoints removed.");
                }
                Some(line) if line > 0 => self.set(line),
                Some(line) => {
                    let found = self.breakpoints.iter().position(|set| line.checked_neg() == Some(*set));
                    if let Some(at) = found {
                        self.breakpoints.remove(at);
                    }
                    let removed = found.is_some();
                    self.tell(if removed { "Breakpoint removed." } else { "No breakpoint in the specified line." });
                }
            }
        }
    }

    fn set(&mut self, line: i64) {
        if self.breakpoints.len() == BREAKPOINTS_MAX {
            return self.tell("Too many breakpoints set.");
        }
        if self.breakpoints.contains(&line) || line > i64::try_from(self.source.len()).unwrap_or(i64::MAX) {
            return self.tell("Wrong line number.");
        }
        self.breakpoints.push(line);
        self.list(line, 1);
    }

    /// Sets how much is shown of values and replies, 0 for all of them, and tells it.
    pub fn set_limit(&mut self, limit: Option<i64>) {
        if let Some(limit) = limit {
            self.knows_limit = true;
            let limit = if limit == 0 { 0 } else { limit.max(LIMIT_MIN) };
            self.limit = usize::try_from(limit).unwrap_or(0);
        }
        match self.limit {
            0 => self.tell("<value> replies are unlimited."),
            limit => self.tell(format!("<value> replies are truncated at {limit} bytes.")),
        }
    }

    /// Tells the client what it may order.
    pub fn help(&mut self) {
        HELP.lines().for_each(|line| self.tell(line));
    }

    /// What the client has yet to be told, as it is sent: an array of simple strings.
    pub fn take_told(&mut self) -> Vec<u8> {
        let told = mem::take(&mut self.told);
        let mut bytes = format!("*{}\r\n", told.len()).into_bytes();
        for line in told {
            bytes.push(b'+');
            bytes.extend(line.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }
}

/// What clients of Redis' debugger are used to read.
const HELP: &str = "\
Redis Lua debugger help:
[h]elp               Show this help.
[s]tep               Run current line and stop again.
[n]ext               Alias for step.
[c]ontinue           Run till next breakpoint.
[l]ist               List source code around current line.
[l]ist [line]        List source code around [line].
                     line = 0 means: current position.
[l]ist [line] [ctx]  In this form [ctx] specifies how many lines
                     to show before/after [line].
[w]hole              List all source code. Alias for 'list 1 1000000'.
[p]rint              Show all the local variables.
[p]rint <var>        Show the value of the specified variable.
                     Can also show global vars KEYS and ARGV.
[b]reak              Show all breakpoints.
[b]reak <line>       Add a breakpoint to the specified line.
[b]reak -<line>      Remove breakpoint from the specified line.
[b]reak 0            Remove all breakpoints.
[t]race              Show a backtrace.
[e]val <code>        Execute some Lua code (in a different callframe).
[r]edis <cmd>        Execute a Redis command.
[m]axlen [len]       Trim logged Redis replies and Lua var dumps to len.
                     Specifying zero as <len> means unlimited.
[a]bort              Stop the execution of the script. In sync
                     mode dataset changes will be retained.

Debugger functions you can call from Lua scripts:
redis.debug()        Produce logs in the debugger console.
redis.breakpoint()   Stop execution like if there was a breakpoint in the
                     next line of code.
";

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn debugger(text: &str) -> (Debugger, Instant) {
        let now = Instant::now();
        (Debugger::new(text.as_bytes(), PATIENCE, now), now)
    }

    fn said(debugger: &mut Debugger) -> String {
        String::from_utf8(debugger.take_told()).unwrap().replace("\r\n", "|")
    }

    fn mark(debugger: &mut Debugger, lines: &str) -> String {
        let words: Vec<Vec<u8>> = lines.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        debugger.mark(&words);
        said(debugger)
    }

    #[test]
    fn it_stops_at_the_first_line_and_then_where_it_is_told_to() {
        let (mut debugger, now) = debugger("a\nb\nc\n");
        assert_eq!(debugger.arrive(1, Event::Line, now), Some(Reason::Step));
        assert_eq!(said(&mut debugger), "*2|+* Stopped at 1, stop reason = step over|+-> 1   a|");
        assert_eq!(debugger.arrive(2, Event::Line, now), None);
        debugger.go_on(true, now);
        assert_eq!(debugger.arrive(2, Event::Line, now), Some(Reason::Step));
        mark(&mut debugger, "3");
        debugger.go_on(false, now);
        assert_eq!(debugger.arrive(2, Event::Line, now), None);
        assert_eq!(debugger.arrive(3, Event::Line, now), Some(Reason::Breakpoint));
        assert_eq!(said(&mut debugger), "*2|+* Stopped at 3, stop reason = break point|+->#3   c|");
        debugger.ask_to_stop();
        assert_eq!(debugger.arrive(2, Event::Line, now), Some(Reason::Asked));
        assert_eq!(debugger.arrive(2, Event::Line, now), None);
        debugger.leave_alone();
        assert_eq!(debugger.arrive(3, Event::Line, now), None);
    }

    #[test]
    fn a_script_that_does_not_stop_by_itself_is_stopped_when_many_instructions_went_by() {
        let (mut debugger, now) = debugger("while true do end");
        debugger.go_on(false, now);
        let later = now + PATIENCE;
        assert_eq!(debugger.arrive(1, Event::Count, now), None);
        assert_eq!(debugger.arrive(1, Event::Line, later), None);
        assert_eq!(debugger.arrive(1, Event::Count, later), Some(Reason::Overdue));
        debugger.go_on(false, later);
        assert_eq!(debugger.arrive(1, Event::Count, later), None);
    }

    #[test]
    fn breakpoints_are_set_shown_and_removed() {
        let (mut debugger, now) = debugger("a\nb\r\nc");
        debugger.go_on(false, now);
        debugger.arrive(2, Event::Line, now);
        assert_eq!(mark(&mut debugger, ""), "*1|+No breakpoints set. Use 'b <line>' to add one.|");
        assert_eq!(mark(&mut debugger, "3 1"), "*4|+-> 2   b |+  #3   c|+  #1   a|+-> 2   b |");
        assert_eq!(mark(&mut debugger, ""), "*3|+2 breakpoints set:|+  #3   c|+  #1   a|");
        assert_eq!(mark(&mut debugger, "1 4"), "*2|+Wrong line number.|+Wrong line number.|");
        assert_eq!(mark(&mut debugger, "-1 -1"), "*2|+Breakpoint removed.|+No breakpoint in the specified line.|");
        assert_eq!(mark(&mut debugger, "x 1.5"), "*2|+Invalid argument:'x'|+Invalid argument:'1.5'|");
        assert_eq!(mark(&mut debugger, "-9223372036854775808 0"), {
            "*2|+No breakpoint in the specified line.|+All breakpoints removed.|"
        });
        let (mut debugger, _) = self::debugger(&"x\n".repeat(70));
        for line in 1..=64 {
            mark(&mut debugger, &line.to_string());
        }
        assert_eq!(mark(&mut debugger, "65"), "*1|+Too many breakpoints set.|");
    }

    #[test]
    fn lists_end_where_the_source_does() {
        let (mut debugger, _) = debugger("a\n\nc\n\r\n\n");
        debugger.list(2, 5);
        assert_eq!(said(&mut debugger), "*3|+   1   a|+   2   |+   3   c|");
        debugger.list(9, 2);
        debugger.list(1, -1);
        assert_eq!(said(&mut debugger), "*0|");
        debugger.list_all();
        assert_eq!(said(&mut debugger), "*3|+   1   a|+   2   |+   3   c|");
        debugger.tell_line(4);
        assert_eq!(said(&mut debugger), "*1|+   4   <out of range source code line>|");
        let (mut debugger, _) = self::debugger("");
        debugger.list_all();
        assert_eq!(said(&mut debugger), "*0|");
    }

    #[test]
    fn long_values_are_cut_and_the_client_is_told_once_how_to_see_all() {
        let (mut debugger, _) = debugger("a");
        let long = vec![b'x'; 300];
        debugger.tell_value(vec![b'x'; 256]);
        assert_eq!(said(&mut debugger).len(), "*1|+|".len() + 256);
        debugger.tell_value(long.clone());
        let cut = format!("+{} ...|", "x".repeat(256));
        let hint = "+<hint> The above reply was trimmed. Use 'maxlen 0' to disable trimming.|";
        assert_eq!(said(&mut debugger), format!("*2|{cut}{hint}"));
        debugger.tell_value(long.clone());
        assert_eq!(said(&mut debugger), format!("*1|{cut}"));
        debugger.set_limit(Some(-7));
        debugger.set_limit(Some(70));
        debugger.set_limit(Some(0));
        debugger.set_limit(None);
        assert_eq!(said(&mut debugger), {
            "*4|+<value> replies are truncated at 60 bytes.|+<value> replies are truncated at 70 bytes.|\
             +<value> replies are unlimited.|+<value> replies are unlimited.|"
        });
        debugger.tell_value(long.clone());
        assert_eq!(said(&mut debugger), format!("*1|+{}|", "x".repeat(300)));
    }

    #[test]
    fn what_is_told_is_one_line_each() {
        let (mut debugger, _) = debugger("a");
        debugger.tell("a\r\nb");
        assert_eq!(debugger.take_told(), b"*1\r\n+a  b\r\n");
        debugger.help();
        assert!(said(&mut debugger).starts_with("*30|+Redis Lua debugger help:|+[h]elp "));
    }
}
