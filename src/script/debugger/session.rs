//! A session at a running Lua: called at every line, it stops where there is a reason to, and obeys until it goes on.

use std::time::Instant;

use crate::script::debugger::orders::{self, Malformed, Order};
use crate::script::debugger::state::{Debugger, Event, Reason};
use crate::script::debugger::{Heard, show};
use crate::script::host::Shared;
use crate::script::lua::{Called, Frame, Lua, Raise, Type};
use crate::script::redis;

/// Who has sent so much and no whole order is not waited for any longer.
const INPUT_MAX: usize = 1024 * 1024;

/// What compiled orders are called in errors.
const CHUNK: &[u8] = b"@ldb_eval";

/// Called for every line that a script reaches, and again and again while it runs; with what it should end.
pub fn look(lua: &mut Lua<'_>, event: Event) -> Option<Raise> {
    if event == Event::Count
        && let Some(raise) = lua.shared().tick()
    {
        lua.stop();
        return Some(raise);
    }
    // What is not the script's own is not looked at.
    let frame = lua.frame(0).filter(is_script)?;
    let reason = with(lua, |debugger| debugger.arrive(frame.line, event, Instant::now())).flatten()?;
    lua.room(16);
    obey(lua, reason).err()
}

/// Called again and again while a piece of Lua runs that the client has sent; with what it should end.
pub fn look_aside(lua: &mut Lua<'_>) -> Option<Raise> {
    let raise = lua.shared().tick();
    let overdue = with(lua, |debugger| debugger.is_overdue(Instant::now())) == Some(true);
    raise.or_else(|| overdue.then(|| Raise::Text(b"timeout reached, infinite loop?".to_vec())))
}

fn is_script(frame: &Frame) -> bool {
    !frame.native && frame.source == b"@user_script"
}

fn with<R>(lua: &Lua<'_>, f: impl FnOnce(&mut Debugger) -> R) -> Option<R> {
    lua.shared().debugger.borrow_mut().as_deref_mut().map(f)
}

fn tell(lua: &Lua<'_>, line: impl Into<Vec<u8>>) {
    with(lua, |debugger| debugger.tell(line));
}

/// Sends what the client has yet to be told.
pub fn send(shared: &Shared) {
    let told = shared.debugger.borrow_mut().as_deref_mut().map(Debugger::take_told);
    if let Some(bytes) = told {
        shared.ask(|caller| caller.tell(&bytes));
    }
}

/// Does what the client orders until the script goes on.
///
/// # Errors
/// With what the script ends.
fn obey(lua: &mut Lua<'_>, reason: Reason) -> Result<(), Raise> {
    loop {
        send(lua.shared());
        let Some(words) = next_order(lua)? else {
            // Nobody is left who could end a script that does not end by itself.
            return match reason {
                Reason::Overdue => Err(Raise::reply("ERR timeout during Lua debugging with client closing connection")),
                _ => Ok(()),
            };
        };
        match Order::of(&words) {
            order @ (Order::Step | Order::Continue) => {
                with(lua, |debugger| debugger.go_on(order == Order::Step, Instant::now()));
                return Ok(());
            }
            Order::Abort => return Err(Raise::reply("ERR script aborted for user request")),
            Order::Print(name) => print(lua, name),
            Order::PrintAll => print_all(lua),
            Order::Trace => trace(lua),
            Order::Eval(code) => evaluate(lua, &code),
            Order::Call(request) => call(lua, request),
            order => drop(with(lua, |debugger| answer(debugger, &order))),
        }
    }
}

/// Orders that are about the debugger itself.
fn answer(debugger: &mut Debugger, order: &Order<'_>) {
    match order {
        Order::Help => debugger.help(),
        Order::List { around, context } => debugger.list(around.unwrap_or(debugger.current()), *context),
        Order::Whole => debugger.list_all(),
        Order::Break(lines) => debugger.mark(lines),
        Order::Limit(limit) => debugger.set_limit(*limit),
        _ => debugger.tell("<error> Unknown Redis Lua debugger command or wrong number of arguments."),
    }
}

/// Waits for the next order; `None` where the client is gone.
fn next_order(lua: &mut Lua<'_>) -> Result<Option<Vec<Vec<u8>>>, Raise> {
    let mut input = with(lua, |debugger| std::mem::take(&mut debugger.input)).unwrap_or_default();
    let order = loop {
        match orders::take(&mut input) {
            Ok(Some(words)) => break Some(words),
            Ok(None) if input.len() > INPUT_MAX => return Err(Raise::reply("ERR max client buffer reached")),
            Ok(None) => {}
            Err(Malformed) => return Err(Raise::reply("ERR protocol error")),
        }
        match lua.shared().ask(|caller| caller.hear(&mut input)).unwrap_or(Heard::Gone) {
            Heard::Bytes => {}
            Heard::Gone => break None,
            Heard::Nothing => {
                lua.stop();
                return Err(lua.shared().tick().unwrap_or_else(|| Raise::reply("ERR the server ends")));
            }
        }
    };
    with(lua, |debugger| {
        debugger.input = input;
        if order.is_none() {
            debugger.leave_alone();
        }
    });
    Ok(order)
}

fn tell_value(lua: &mut Lua<'_>, prefix: &[u8], at: i32) {
    let value = show::value(lua, at);
    with(lua, |debugger| debugger.tell_value([prefix, &value].concat()));
}

/// Shows the innermost variable of this name, or one of the two that scripts find among the global ones.
fn print(lua: &mut Lua<'_>, name: &[u8]) {
    let mut level = 0;
    while lua.frame(level).is_some() {
        let mut n = 1;
        while let Some(local) = lua.push_local(level, n) {
            if local == name {
                tell_value(lua, b"<value> ", -1);
                lua.pop(1);
                return;
            }
            lua.pop(1);
            n += 1;
        }
        level += 1;
    }
    match name {
        b"KEYS" | b"ARGV" => {
            // They stand behind the table that scripts see.
            let top = lua.top();
            if lua.compile(&[b"return ", name].concat(), CHUNK) && lua.call(0, 1, 0) == Called::Done {
                tell_value(lua, b"<value> ", -1);
            }
            lua.set_top(top);
        }
        _ => tell(lua, "No such variable."),
    }
}

/// Shows the variables of the running function.
fn print_all(lua: &mut Lua<'_>) {
    let (mut n, mut any) = (1, false);
    while let Some(name) = lua.push_local(0, n) {
        // What has no name stands for a value in the middle of an expression.
        if name != b"(*temporary)" {
            tell_value(lua, &[b"<value> ", &name[..], b" = "].concat(), -1);
            any = true;
        }
        lua.pop(1);
        n += 1;
    }
    if !any {
        tell(lua, "No local variables in the current context.");
    }
}

fn trace(lua: &mut Lua<'_>) {
    let mut level = 0;
    while let Some(frame) = lua.frame(level) {
        if is_script(&frame) {
            let name = lua.function_name(level).unwrap_or_else(|| b"top level".to_vec());
            let begin: &[u8] = if level == 0 { b"In " } else { b"From " };
            tell(lua, [begin, &name, b":"].concat());
            with(lua, |debugger| debugger.tell_line(frame.line));
        }
        level += 1;
    }
}

/// Runs a piece of Lua, an expression or statements, with the global variables of scripts.
fn evaluate(lua: &mut Lua<'_>, code: &[u8]) {
    let top = lua.top();
    let mut compiled = lua.compile(&[b"return ", code].concat(), CHUNK);
    if !compiled {
        lua.pop(1);
        compiled = lua.compile(code, CHUNK);
    }
    with(lua, |debugger| debugger.begin(Instant::now()));
    if compiled && lua.call_aside() == Called::Done {
        tell_value(lua, b"<retval> ", -1);
    } else {
        let at = lua.top();
        if lua.type_of(at) == Type::Table {
            lua.raw_field(at, "err");
        }
        let error = lua.text(-1).unwrap_or_else(|| show::value(lua, at));
        tell(lua, [b"<error> ", &error[..]].concat());
    }
    lua.set_top(top);
}

/// Runs a command as the script would, and shows its reply.
fn call(lua: &mut Lua<'_>, request: &[Vec<u8>]) {
    let top = lua.top();
    if !lua.room(i32::try_from(request.len()).unwrap_or(i32::MAX).saturating_add(8)) {
        return tell(lua, "max lua stack reached");
    }
    lua.push_native(redis::call);
    request.iter().for_each(|word| lua.push_bytes(word));
    with(lua, |debugger| debugger.narrate(true));
    // How it ends is told as it ends.
    lua.call(i32::try_from(request.len()).unwrap_or(0), 0, 0);
    with(lua, |debugger| debugger.narrate(false));
    lua.set_top(top);
}

/// What functions of scripts tell the client while it goes from line to line.
impl Shared {
    fn narrate(&self, f: impl FnOnce(&mut Debugger)) {
        if let Some(debugger) = self.debugger.borrow_mut().as_deref_mut()
            && debugger.narrates()
        {
            f(debugger);
        }
    }

    /// A command is about to run.
    pub fn narrate_request(&self, request: &[&[u8]]) {
        /// So many words of it are shown.
        const WORDS_MAX: usize = 10;
        self.narrate(|debugger| {
            let mut line = b"<redis>".to_vec();
            for word in request.iter().take(WORDS_MAX) {
                line.push(b' ');
                line.extend_from_slice(word);
            }
            if request.len() > WORDS_MAX {
                line.extend_from_slice(format!(" ... ({} more)", request.len() - WORDS_MAX - 1).as_bytes());
            }
            debugger.tell(line);
        });
    }

    /// A command has replied.
    pub fn narrate_reply(&self, reply: &[u8]) {
        self.narrate(|debugger| debugger.tell_value([b"<reply> ", &show::reply(reply)[..]].concat()));
    }

    /// A script is given an error of the server's making: `line` is an error reply's, its code first. Redis' own
    /// table of errors has theirs with the end of the line, and what it says to scripts only has no code.
    pub fn narrate_error(&self, line: &[u8]) {
        self.narrate(|debugger| {
            debugger.tell(match line.strip_prefix(b"ERR ") {
                Some(text) => [b"<error> ", text].concat(),
                None => [b"<error> -", line, b"  "].concat(),
            });
        });
    }

    /// A script is given an error that a command replied or that it made itself.
    pub fn narrate_error_reply(&self, line: &[u8]) {
        self.narrate(|debugger| debugger.tell([b"<error> -", line].concat()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;
    use crate::resp::reply::{Output, Protocol};
    use crate::script::cache::Script;
    use crate::script::host::{Answer, Caller};
    use crate::script::source::ScriptHead;
    use crate::script::vm::{Ended, Vm, sha};

    /// A client that says these lines one after the other, and a server that answers everything with its name.
    struct Client {
        says: VecDeque<&'static str>,
        told: Vec<u8>,
        at_once: bool,
        ends: bool,
    }

    impl Caller for Client {
        fn call(&mut self, args: &[&[u8]], reply: &mut Output) -> Answer {
            match args[0] {
                b"nosuch" => return Answer::Refused(b"ERR nothing like it".to_vec()),
                b"full" => return Answer::Refused(b"OOM full".to_vec()),
                b"wrong" => reply.error("WRONG type"),
                name => reply.bulk(name),
            }
            Answer::Replied
        }
        fn permits(&mut self, _: &[&[u8]]) -> Option<bool> {
            None
        }
        fn propagate(&mut self, _: bool, _: bool) {}
        fn log(&mut self, _: u8, _: &[u8]) {}
        fn tick(&mut self) -> Option<Raise> {
            self.ends.then(|| Raise::reply("ERR the end"))
        }
        fn tell(&mut self, bytes: &[u8]) {
            self.told.extend_from_slice(bytes);
        }
        fn hear(&mut self, into: &mut Vec<u8>) -> Heard {
            if self.ends {
                return Heard::Nothing;
            }
            let count = if self.at_once { self.says.len() } else { self.says.len().min(1) };
            for line in self.says.drain(..count) {
                if let Some(raw) = line.strip_prefix('!') {
                    into.extend_from_slice(raw.as_bytes());
                } else {
                    let words: Vec<&str> = line.split(' ').collect();
                    into.extend(format!("*{}\r\n", words.len()).bytes());
                    words.iter().for_each(|word| into.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
                }
            }
            if count > 0 { Heard::Bytes } else { Heard::Gone }
        }
    }

    fn session(text: &str, says: &[&'static str]) -> (Vec<String>, String) {
        play(text, Client { says: says.iter().copied().collect(), told: Vec::new(), at_once: false, ends: false })
    }

    fn play(text: &str, mut client: Client) -> (Vec<String>, String) {
        let mut vm = Vm::new();
        let sha = sha(text.as_bytes());
        vm.compile(&Script::new(sha, text.as_bytes(), ScriptHead { flags: None, begin: 0 })).unwrap();
        let debugger = Debugger::new(text.as_bytes(), Duration::from_millis(1), Instant::now());
        vm.debug(Some(Box::new(debugger)));
        vm.run_script(&sha, &[b"k"], &[], &mut client);
        let mut debugger = vm.debug(None).unwrap();
        client.told.extend(debugger.take_told());
        let mut out = Output::new(Protocol::Resp2);
        let ended = match vm.finish(b"SHA", &mut out) {
            Ended::Replied(_) => String::from_utf8(out.to_vec()).unwrap(),
            Ended::Failed { line, .. } => String::from_utf8(line).unwrap(),
        };
        let told = String::from_utf8(client.told).unwrap();
        let told = told.split("\r\n").filter_map(|line| line.strip_prefix('+')).map(str::to_owned).collect();
        (told, ended.replace("\r\n", "|"))
    }

    const SCRIPT: &str =
        "local a = 1\nlocal function f(x)\n  local y = x + a\n  return y\nend\nlocal r = f(a)\nreturn r";

    #[test]
    fn a_script_is_followed_line_by_line() {
        let (told, ended) = session(SCRIPT, &["s", "n", "s", "trace", "p", "p a", "p z", "p KEYS", "s", "s", "s"]);
        assert_eq!(ended, ":2|");
        let expected = "\
            * Stopped at 1, stop reason = step over\n-> 1   local a = 1\n\
            * Stopped at 5, stop reason = step over\n-> 5   end\n\
            * Stopped at 6, stop reason = step over\n-> 6   local r = f(a)\n\
            * Stopped at 3, stop reason = step over\n-> 3     local y = x + a\n\
            In f:\n-> 3     local y = x + a\nFrom top level:\n   6   local r = f(a)\n\
            <value> x = 1\n<value> 1\nNo such variable.\n<value> {\"k\"}\n\
            * Stopped at 4, stop reason = step over\n-> 4     return y\n\
            * Stopped at 7, stop reason = step over\n-> 7   return r";
        assert_eq!(told.join("\n"), expected);
    }

    #[test]
    fn orders_that_come_together_are_obeyed_in_turn() {
        let says = ["s", "c", "s"].into_iter().collect();
        let client = Client { says, told: Vec::new(), at_once: true, ends: false };
        let (told, ended) = play("local a = 1\nlocal b = 2\nreturn a", client);
        assert_eq!((told.len(), &ended[..]), (4, ":1|"));
    }

    #[test]
    fn who_goes_leaves_the_script_to_itself_unless_it_does_not_end() {
        let (told, ended) = session("redis.breakpoint()\nreturn redis.call('get')", &[]);
        assert_eq!((told.len(), &ended[..]), (4, "$3|get|"));
        let (_, ended) = session("while true do end", &["c", "c"]);
        assert_eq!(
            ended,
            "ERR timeout during Lua debugging with client closing connection script: SHA, on @user_script:1."
        );
    }

    #[test]
    fn aborted_and_misunderstood_scripts_end_with_an_error() {
        for (says, error) in [
            ("abort", "script aborted for user request"),
            ("!PING\r\n", "protocol error"),
            ("!*0\r\n", "protocol error"),
        ] {
            let (_, ended) = session("return 1", &[says]);
            assert_eq!(ended, format!("ERR {error} script: SHA, on @user_script:1."));
        }
        let client = Client { says: VecDeque::new(), told: Vec::new(), at_once: false, ends: true };
        let (_, ended) = play("pcall(function() return 1 end)\nwhile true do pcall(f) end", client);
        assert_eq!(ended, "ERR the end script: SHA, on @user_script:1.");
    }

    #[test]
    fn what_is_called_is_told_while_the_client_steps() {
        let script = "redis.call('get', 1)\nredis.pcall('nosuch')\nredis.pcall('full')\nredis.pcall('wrong')\n\
                      redis.error_reply('my own')\nredis.debug('a', {1})\nreturn redis.call('x')";
        let (told, ended) = session(script, &["s", "s", "s", "s", "s", "s", "c"]);
        let told: Vec<&str> = told.iter().map(String::as_str).filter(|line| line.starts_with('<')).collect();
        assert_eq!(ended, "$1|x|");
        assert_eq!(
            told,
            [
                "<redis> get 1",
                "<reply> \"get\"",
                "<redis> nosuch",
                "<error> nothing like it",
                "<redis> full",
                "<error> -OOM full  ",
                "<redis> wrong",
                "<error> -WRONG type",
                "<reply> \"-WRONG type\"",
                "<error> -my own",
                "<debug> line 6: \"a\", {1}",
            ]
        );
    }

    #[test]
    fn code_and_commands_run_where_the_script_stands_still() {
        let orders = [
            "e 1 + 1",
            "e KEYS",
            "e x y",
            "e b",
            "e",
            "eval local q = 2 return q",
            "e redis.call('nosuch')",
            "e error({})",
            "e while true do end",
            "e while true do pcall(function() while true do end end) end",
            "r get a b c d e f g h i j",
            "r nosuch",
            "server wrong",
            "nonsense",
            "c",
        ];
        let (told, ended) = session("return 5", &orders);
        assert_eq!(ended, ":5|");
        assert_eq!(
            told[2..],
            [
                "<retval> 2",
                "<retval> {\"k\"}",
                "<error> ldb_eval:1: '=' expected near 'y'",
                "<error> ldb_eval:1: Script attempted to access nonexistent global variable 'b'",
                "<retval> nil",
                "<retval> 2",
                "<error> ERR nothing like it",
                "<error> {}",
                "<error> timeout reached, infinite loop?",
                "<error> timeout reached, infinite loop?",
                "<redis> get a b c d e f g h i ... (0 more)",
                "<reply> \"get\"",
                "<redis> nosuch",
                "<error> nothing like it",
                "<redis> wrong",
                "<error> -WRONG type",
                "<reply> \"-WRONG type\"",
                "<error> Unknown Redis Lua debugger command or wrong number of arguments.",
            ]
        );
    }
}
