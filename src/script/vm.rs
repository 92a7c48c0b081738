//! A Lua machine: compiles scripts and libraries, keeps what it compiled, runs one at a time.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use crate::resp::reply::{Output, Protocol};
use crate::script::cache::{Cache, EVALUATED_MAX, Learned, Script};
use crate::script::convert::{Errors, write_value};
use crate::script::debugger::state::Debugger;
use crate::script::host::{Caller, Registered};
use crate::script::library::{Function, Libraries, Library};
use crate::script::lua::{Called, Interpreter, Kept, Lua, Raise, Type};
use crate::script::sandbox::{self, Globals};
use crate::script::{base, redis};

/// The hexadecimal SHA-1 of a script's text, by which it is called.
pub type Sha = [u8; 40];

/// The SHA of a script's text.
pub fn sha(text: &[u8]) -> Sha {
    redis::sha1_hex(text)
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Its result is written, with these errors in it.
    Replied(Errors),
    /// With an error: the reply's line, and whether statistics know of it already.
    Failed {
        /// The line, its code first.
        line: Vec<u8>,
        /// Whether it was counted as it arose.
        counted: bool,
    },
}

/// What an error handler found out.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    text: Vec<u8>,
    counted: bool,
    place: Option<(Vec<u8>, i64)>,
}

/// What a machine keeps of a library.
struct Loaded {
    library: Arc<Library>,
    functions: HashMap<Vec<u8>, Kept>,
    environment: Kept,
}

/// A machine.
pub struct Vm {
    interpreter: Interpreter,
    globals: Globals,
    handler: Kept,
    scripts: HashMap<Sha, Kept, RandomState>,
    /// Beyond so many those that the cache has forgotten are looked for.
    scripts_max: usize,
    libraries: HashMap<Vec<u8>, Loaded>,
    /// Which scripts are known here: those of this life of the server's cache.
    life: u64,
    runs: u64,
    /// The state of the server's libraries that those here were last compared with.
    version: u64,
    /// How the last run ended.
    called: Called,
}

/// After so many runs a little garbage is collected, whether Lua thinks it is time or not.
const RUNS_PER_COLLECTION: u64 = 50;

impl Default for Vm {
    fn default() -> Vm {
        Vm::new()
    }
}

impl Vm {
    /// A machine that knows no scripts yet.
    pub fn new() -> Vm {
        let mut interpreter = Interpreter::new();
        interpreter.shared().random.set(base::UNSEEDED);
        let mut lua = interpreter.lua();
        let globals = sandbox::build(&mut lua);
        lua.push_native(explain);
        let handler = lua.keep();
        Vm {
            interpreter,
            globals,
            handler,
            scripts: HashMap::default(),
            scripts_max: EVALUATED_MAX,
            libraries: HashMap::new(),
            life: 0,
            runs: 0,
            version: 0,
            called: Called::Done,
        }
    }

    /// The memory that its values take, in bytes.
    pub fn memory(&self) -> usize {
        self.interpreter.memory()
    }

    /// Forgets scripts that the server's cache has forgotten: at once where that was all of them, otherwise when they have
    /// become many.
    pub fn live(&mut self, cache: &Cache) {
        const SPARE: usize = 256;
        let life = cache.life();
        if self.life != life {
            self.life = life;
            self.forget_scripts(|_| false);
            self.interpreter.collect(true);
        } else if self.scripts.len() > self.scripts_max {
            self.forget_scripts(|sha| cache.find(sha).is_some());
            self.scripts_max = self.scripts.len() + SPARE;
        }
    }

    fn forget_scripts(&mut self, is_kept: impl Fn(&Sha) -> bool) {
        let mut lua = self.interpreter.lua();
        self.scripts.retain(|sha, function| {
            let keep = is_kept(sha);
            if !keep {
                lua.forget(*function);
            }
            keep
        });
    }

    /// Compiles the text of a script behind its first line, unless it is known.
    ///
    /// # Errors
    /// Lua's text for what is wrong with it.
    pub fn compile(&mut self, script: &Script) -> Result<(), Vec<u8>> {
        if self.scripts.contains_key(&script.sha) {
            return Ok(());
        }
        let mut lua = self.interpreter.lua();
        if !lua.compile(&script.text[script.head.begin..], b"@user_script") {
            let error = lua.text(-1).unwrap_or_default();
            lua.set_top(0);
            return Err(error);
        }
        let function = lua.keep();
        self.scripts.insert(script.sha, function);
        Ok(())
    }

    /// Runs a script that was compiled, and asks `caller` for what it needs. [`Vm::finish`] comes next.
    pub fn run_script(&mut self, sha: &Sha, keys: &[&[u8]], args: &[&[u8]], caller: &mut dyn Caller) {
        let function = *self.scripts.get(sha).expect("a script is compiled before it runs");
        let (globals, handler) = (&self.globals, self.handler);
        let mut lua = self.interpreter.lua();
        lua.set_top(0);
        lua.push_kept(globals.eval);
        for (name, texts) in [(globals.keys, keys), (globals.argv, args)] {
            lua.push_kept(name);
            push_texts(&mut lua, texts);
            lua.raw_set(1);
        }
        lua.set_top(0);
        lua.push_kept(handler);
        lua.push_kept(function);
        self.run(0, caller);
    }

    /// Runs a function of a library that was loaded; as [`Vm::run_script`].
    pub fn run_function(
        &mut self,
        library: &[u8],
        name: &[u8],
        keys: &[&[u8]],
        args: &[&[u8]],
        caller: &mut dyn Caller,
    ) {
        let function = self.libraries.get(library).and_then(|loaded| loaded.functions.get(name)).copied();
        let function = function.expect("a library is loaded before its functions run");
        let handler = self.handler;
        let mut lua = self.interpreter.lua();
        lua.set_top(0);
        lua.push_kept(handler);
        lua.push_kept(function);
        push_texts(&mut lua, keys);
        push_texts(&mut lua, args);
        self.run(2, caller);
    }

    /// Has the next runs happen within a session of the debugger, or within none; returns the one so far.
    pub fn debug(&mut self, debugger: Option<Box<Debugger>>) -> Option<Box<Debugger>> {
        self.interpreter.shared().debugger.replace(debugger)
    }

    /// Calls the function that stands on the stack behind the error handler.
    fn run(&mut self, arguments: i32, caller: &mut dyn Caller) {
        let shared = self.interpreter.shared();
        shared.protocol.set(Protocol::Resp2);
        shared.stopped.set(false);
        shared.failure.take();
        if shared.debugger.borrow().is_some() {
            self.interpreter.debug();
        }
        let mut lua = self.interpreter.lua();
        self.called = shared.caller.lend(caller, || lua.call(arguments, 1, 1));
        self.interpreter.watch();
    }

    /// Forgets what the script or function that ran last has returned: it is run again.
    pub fn discard(&mut self) {
        self.interpreter.lua().set_top(0);
    }

    /// Writes what the script or function that ran last has returned, or tells its error; `name` is how it is called there.
    pub fn finish(&mut self, name: &[u8], out: &mut Output) -> Ended {
        let protocol = self.interpreter.shared().protocol.get();
        let mut lua = self.interpreter.lua();
        let ended = match self.called {
            Called::Done => {
                let result = lua.top();
                Ended::Replied(write_value(&mut lua, result, protocol, out))
            }
            called => failed(&mut lua, called, &String::from_utf8_lossy(name)),
        };
        lua.set_top(0);
        self.runs += 1;
        if self.runs.is_multiple_of(RUNS_PER_COLLECTION) {
            self.interpreter.collect(false);
        }
        ended
    }

    /// Loads a library that another machine has read before, unless this one has it.
    ///
    /// # Errors
    /// As [`Vm::read_library`].
    pub fn load_library(&mut self, library: &Arc<Library>, caller: &mut dyn Caller) -> Result<(), Vec<u8>> {
        if !self.libraries.get(&library.name).is_some_and(|loaded| Arc::ptr_eq(&loaded.library, library)) {
            self.read_library(&library.name, &library.code, library.begin, caller)?;
            if let Some(loaded) = self.libraries.get_mut(&library.name) {
                loaded.library = library.clone();
            }
        }
        Ok(())
    }

    /// Forgets libraries that the server has no longer.
    pub fn keep_libraries(&mut self, all: &Libraries) {
        if self.version == all.version() {
            return;
        }
        self.version = all.version();
        let is_gone =
            |library: &Arc<Library>| !all.by_name(&library.name).is_some_and(|kept| Arc::ptr_eq(kept, library));
        let gone: Vec<Vec<u8>> = self
            .libraries
            .iter()
            .filter(|(_, loaded)| is_gone(&loaded.library))
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter().for_each(|name| self.unload(name));
    }

    /// Reads a library: runs its text and notes what it registers. Its functions can be run from then on, in place of
    /// those of another library of that name.
    ///
    /// `begin` is where its text begins behind the first line; `caller` is asked whether it takes too long.
    ///
    /// # Errors
    /// Redis' text for what went wrong, without its code.
    pub fn read_library(
        &mut self,
        name: &[u8],
        code: &[u8],
        begin: usize,
        caller: &mut dyn Caller,
    ) -> Result<Arc<Library>, Vec<u8>> {
        let shared = self.interpreter.shared();
        let handler = self.handler;
        let (loading, running) = (self.globals.loading, self.globals.function);
        let mut lua = self.interpreter.lua();
        lua.set_top(0);
        lua.push_kept(handler);
        if !lua.compile(&code[begin..], b"@user_function") {
            let error = [b"Error compiling function: ", &lua.text(-1).unwrap_or_default()[..]].concat();
            lua.set_top(0);
            return Err(error);
        }
        sandbox::push_environment(&mut lua, loading);
        lua.push_value(3);
        let environment = lua.keep();
        lua.set_environment(2);
        shared.failure.take();
        shared.stopped.set(false);
        shared.registered.replace(Some(Vec::new()));
        let called = shared.caller.lend(caller, || lua.call(0, 0, 1));
        let registered = shared.registered.take().unwrap_or_default();
        let failure = shared.failure.take();
        lua.set_top(0);
        lua.push_kept(environment);
        let error = if called != Called::Done {
            let text = failure.map_or_else(|| b"execution failure".to_vec(), |failure| failure.text);
            Some([b"Error registering functions: ", &text[..]].concat())
        } else if registered.is_empty() {
            Some(b"No functions registered".to_vec())
        } else {
            None
        };
        if let Some(error) = error {
            sandbox::drop_environment(&mut lua);
            lua.forget(environment);
            registered.into_iter().for_each(|function| lua.forget(function.function));
            self.interpreter.watch();
            return Err(error);
        }
        sandbox::change_environment(&mut lua, running);
        lua.set_top(0);
        self.interpreter.watch();
        let mut functions = HashMap::new();
        let mut declared = Vec::new();
        for Registered { name, description, flags, function } in registered {
            functions.insert(name.clone(), function);
            declared.push(Function { name, description, flags, learned: Learned::default() });
        }
        let library = Arc::new(Library { name: name.to_vec(), code: code.to_vec(), begin, functions: declared });
        self.unload(name);
        self.libraries.insert(name.to_vec(), Loaded { library: library.clone(), functions, environment });
        Ok(library)
    }

    /// Forgets a library.
    pub fn unload(&mut self, name: &[u8]) {
        let Some(loaded) = self.libraries.remove(name) else { return };
        let mut lua = self.interpreter.lua();
        lua.push_kept(loaded.environment);
        sandbox::drop_environment(&mut lua);
        lua.forget(loaded.environment);
        loaded.functions.into_values().for_each(|function| lua.forget(function));
    }
}

fn push_texts(lua: &mut Lua<'_>, texts: &[&[u8]]) {
    lua.push_table(texts.len(), 0);
    for (i, text) in texts.iter().enumerate() {
        lua.push_bytes(text);
        lua.set_element(-2, i + 1);
    }
}

fn failed(lua: &mut Lua<'_>, called: Called, name: &str) -> Ended {
    let failure = lua.shared().failure.take().filter(|_| called == Called::Failed);
    let Some(Failure { text, counted, place }) = failure else {
        let why = lua.text(-1).unwrap_or_else(|| b"execution failure".to_vec());
        let why = String::from_utf8_lossy(&why[..why.len().min(100)]).into_owned();
        return Ended::Failed { line: format!("ERR Error running script {name}, {why}").into_bytes(), counted: false };
    };
    let mut line = text;
    if let Some((source, number)) = place {
        line.extend_from_slice(format!(" script: {name}, on ").as_bytes());
        line.extend_from_slice(&source);
        line.extend_from_slice(format!(":{number}.").as_bytes());
    }
    Ended::Failed { line, counted }
}

/// Notes an error that nobody has caught, and where it arose.
fn explain(lua: &mut Lua<'_>) -> Result<usize, Raise> {
    // The function that raised it is one level up; where that is one of Lua's or ours, its caller counts.
    let frame = lua.frame(1).filter(|frame| !frame.native).or_else(|| lua.frame(2));
    let place = frame.map(|frame| (frame.source, frame.line));
    let (text, counted) = match lua.type_of(1) {
        Type::Table => {
            let text = if lua.raw_field(1, "err") == Type::String { lua.text(-1) } else { None };
            let counted = lua.raw_field(1, "ignore_error_stats_update") != Type::Nil && lua.truth(-1);
            (text.unwrap_or_else(|| b"ERR unknown error".to_vec()), counted)
        }
        Type::String | Type::Number => ([b"ERR ", &lua.text(1).unwrap_or_default()[..]].concat(), false),
        Type::Boolean if lua.truth(1) => (b"ERR true".to_vec(), false),
        Type::Boolean => (b"ERR false".to_vec(), false),
        Type::Nil | Type::None => (b"ERR nil".to_vec(), false),
        other => (format!("ERR {}: {:#x}", other.name(), lua.identity(1)).into_bytes(), false),
    };
    lua.shared().failure.replace(Some(Failure { text, counted, place }));
    lua.push_nil();
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::host::Answer;
    use crate::script::source::ScriptHead;

    /// Answers GET with the key, anything else with what the test says.
    struct Echo {
        reply: &'static [u8],
        ticks: u32,
    }

    impl Caller for Echo {
        fn call(&mut self, args: &[&[u8]], reply: &mut Output) -> Answer {
            if args[0] == b"GET" {
                reply.bulk(args[1])
            } else {
                reply.raw(self.reply)
            }
            Answer::Replied
        }
        fn permits(&mut self, args: &[&[u8]]) -> Option<bool> {
            (args[0] != b"NOPE").then(|| args[0] == b"GET")
        }
        fn propagate(&mut self, _: bool, _: bool) {}
        fn log(&mut self, _: u8, _: &[u8]) {}
        fn tick(&mut self) -> Option<Raise> {
            self.ticks += 1;
            (self.ticks > 3).then(|| Raise::reply("ERR killed"))
        }
    }

    fn eval_with(vm: &mut Vm, text: &str, reply: &'static [u8], protocol: Protocol) -> String {
        let sha = sha(text.as_bytes());
        let head = ScriptHead { flags: None, begin: 0 };
        if let Err(error) = vm.compile(&Script::new(sha, text.as_bytes(), head)) {
            return format!("!{}", String::from_utf8_lossy(&error));
        }
        let mut out = Output::new(protocol);
        let mut caller = Echo { reply, ticks: 0 };
        vm.run_script(&sha, &[b"k1"], &[b"a1", b"a2"], &mut caller);
        match vm.finish(&sha, &mut out) {
            Ended::Replied(_) => String::from_utf8_lossy(&out.to_vec()).replace("\r\n", "|"),
            Ended::Failed { line, .. } => {
                let line = String::from_utf8_lossy(&line).into_owned();
                line.replace(&String::from_utf8_lossy(&sha).into_owned(), "SHA")
            }
        }
    }

    fn eval(text: &str) -> String {
        eval_with(&mut Vm::new(), text, b"+OK\r\n", Protocol::Resp2)
    }

    #[test]
    fn values_become_replies() {
        assert_eq!(
            eval("return {KEYS[1], ARGV, 3.9, true, false, {ok='fine'}, nil, 1}"),
            "*6|$2|k1|*2|$2|a1|$2|a2|:3|:1|$-1|+fine|"
        );
        assert_eq!(eval("return redis.call('GET', 12)"), "$2|12|");
        assert_eq!(eval("return redis.call('GET', 1700000000000)"), "$13|1700000000000|");
        assert_eq!(eval("return {err='WRONG x'}"), "-WRONG x|");
        assert_eq!(eval("return 1e30"), ":-9223372036854775808|");
    }

    #[test]
    fn resp3_comes_and_goes_where_it_is_asked_for() {
        let mut vm = Vm::new();
        let mut ask = |text: &str, reply| eval_with(&mut vm, text, reply, Protocol::Resp3);
        assert_eq!(
            ask("redis.setresp(3) return redis.call('X')", b"%1\r\n+a\r\n#t\r\n"),
            "%1|$1|a|#t|".replace("$1|a", "+a")
        );
        assert_eq!(ask("redis.setresp(3) return redis.call('X')", b",3.5\r\n"), ",3.5|");
        assert_eq!(ask("redis.setresp(3) return redis.call('X') == nil", b"_\r\n"), "#t|");
        assert_eq!(ask("return true", b""), ":1|");
    }

    #[test]
    fn errors_say_where_they_arose() {
        assert_eq!(eval("error('abc')"), "ERR user_script:1: abc script: SHA, on @user_script:1.");
        assert_eq!(eval("\nerror({err='MY x'})"), "MY x script: SHA, on @user_script:2.");
        assert_eq!(eval("error({})"), "ERR unknown error script: SHA, on @user_script:1.");
        assert_eq!(
            eval("return redis.call()"),
            "ERR Please specify at least one argument for this redis lib call script: SHA, on @user_script:1."
        );
        assert_eq!(eval("return ("), "!user_script:1: unexpected symbol near '<eof>'");
        assert_eq!(
            eval("return {pcall(redis.call)}"),
            "*2|$-1|$64|ERR Please specify at least one argument for this redis lib call|"
        );
        assert_eq!(eval("string.gsub('x','x',error)"), "ERR x script: SHA, on =[C]:-1.");
    }

    #[test]
    fn nothing_global_can_be_changed() {
        for text in ["x = 1", "_G.x = 1", "string.x = 1", "redis.call = nil", "KEYS = {}", "math.pi = 3"] {
            let said = eval(text);
            assert!(said.starts_with("ERR user_script:1: Attempt to modify a readonly table script"), "{text}: {said}");
        }
        for text in ["rawset(_G, 'x', 1)", "setmetatable(_G, {})", "setmetatable(string, nil)"] {
            assert!(eval(text).starts_with("ERR Attempt to modify a readonly table script"), "{text}");
        }
        assert_eq!(
            eval("return print"),
            "ERR user_script:1: Script attempted to access nonexistent global variable 'print' script: SHA, on @user_script:1."
        );
    }

    #[test]
    fn no_way_leads_behind_the_sandbox() {
        let mut vm = Vm::new();
        let mut try_it = |text: &str| eval_with(&mut vm, text, b"", Protocol::Resp2);
        for text in [
            "local f, t = pairs(_G) rawset(t, 'x', 1)",
            "local mt = getmetatable(_G) if mt then mt.__index.x = 1 end",
            "local mt = getmetatable('') mt.__index = 1",
            "getmetatable('').__index.x = 1",
            "for k, v in pairs(_G) do if k == 'string' then v.x = 1 end end",
            "local k, v = next(redis) v = nil rawset(redis, 'x', 1)",
        ] {
            try_it(text);
        }
        assert!(try_it("return x").contains("nonexistent"));
        assert_eq!(try_it("return string.x"), "$-1|");
        assert_eq!(try_it("return rawget(redis, 'x')"), "$-1|");
        assert_eq!(try_it("local n = 0 for k in pairs(redis) do n = n + 1 end return n > 10"), ":1|");
        assert_eq!(try_it("return rawget(redis, 'LOG_NOTICE')"), ":2|");
        assert_eq!(try_it("return type(loadstring(string.dump(function() end)))"), "$3|nil|");
    }

    #[test]
    fn an_endless_loop_is_ended_also_inside_pcall() {
        assert_eq!(eval("while true do end"), "ERR killed script: SHA, on @user_script:1.");
        assert_eq!(
            eval("while true do pcall(function() while true do end end) end"),
            "ERR killed script: SHA, on @user_script:1."
        );
        assert!(
            eval("local f = coroutine.wrap(function() while true do end end) while true do pcall(f) end")
                .starts_with("ERR killed")
        );
    }

    #[test]
    fn deep_values_end_with_an_error_not_with_the_stack() {
        let deep = eval("local t = {} local x = t for i = 1, 20000 do x[1] = {} x = x[1] end return t");
        assert!(deep.ends_with("-ERR reached lua stack limit|"), "{}", &deep[deep.len() - 100..]);
        assert!(eval("local t = {} t[1] = t return cjson.encode(t)").contains("excessive nesting"));
        assert!(
            eval("return cjson.decode(('['):rep(100000))").contains("Found too many nested data structures (1001)")
        );
        assert!(eval("return redis.call('GET', unpack({}, 1, 7900)) ").len() > 1);
    }

    #[test]
    fn libraries_register_functions_and_see_nothing_else_while_they_do() {
        let mut vm = Vm::new();
        let mut load = |code: &str| {
            let whole = format!("#!lua name=l\n{code}");
            let mut caller = Echo { reply: b"", ticks: 0 };
            vm.read_library(b"l", whole.as_bytes(), 12, &mut caller)
                .map_err(|e| String::from_utf8_lossy(&e).into_owned())
        };
        assert_eq!(load("").unwrap_err(), "No functions registered");
        assert_eq!(
            load("return redis.call('get','x')").unwrap_err(),
            "Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'call'"
        );
        assert_eq!(load("syn tax").unwrap_err(), "Error compiling function: user_function:2: '=' expected near 'tax'");
        let library = load("local n = 0\nredis.register_function('f', function(k, a) n = n + 1 return {n, k[1], math.floor(2.5), redis.call('GET', 'q')} end)").unwrap();
        assert_eq!(library.functions[0].name, b"f");
        let mut out = Output::new(Protocol::Resp2);
        let mut caller = Echo { reply: b"", ticks: 0 };
        vm.run_function(b"l", b"f", &[b"k"], &[], &mut caller);
        assert_eq!(vm.finish(b"f", &mut out), Ended::Replied(Errors::default()));
        assert_eq!(String::from_utf8_lossy(&out.to_vec()), "*4\r\n:1\r\n$1\r\nk\r\n:2\r\n$1\r\nq\r\n");
    }

    #[test]
    fn json_goes_both_ways() {
        assert_eq!(
            eval("return cjson.encode({1, 'a/b', {x = cjson.null}, true, 1.5, {}})"),
            "$33|[1,\"a\\/b\",{\"x\":null},true,1.5,{}]|"
        );
        assert_eq!(
            eval("local v = cjson.decode('{\"a\": [1, 2.5e3, \"\\\\u00e9\"]}') return {v.a[1], v.a[2], v.a[3]}"),
            "*3|:1|:2500|$2|é|"
        );
        assert_eq!(
            eval("return cjson.decode('[1')"),
            "ERR user_script:1: Expected comma or array end but found T_END at character 3 script: SHA, on @user_script:1."
        );
    }

    #[test]
    fn message_pack_and_structs_go_both_ways() {
        assert_eq!(
            eval(
                "local v = cmsgpack.unpack(cmsgpack.pack({1, -200, 'x', {a = 1.5}})) return {v[1], v[2], v[3], tostring(v[4].a)}"
            ),
            "*4|:1|:-200|$1|x|$3|1.5|"
        );
        assert_eq!(
            eval("return {struct.unpack('>I2c0s', struct.pack('>I2c0s', 3, 'abc', 'de'))}"),
            "*3|$3|abc|$2|de|:9|"
        );
        assert_eq!(
            eval("return {bit.band(255, 15), bit.lshift(1, 31), bit.tohex(-1, -4)}"),
            "*3|:15|:-2147483648|$4|FFFF|"
        );
    }
}
