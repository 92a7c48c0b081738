//! The decoders that scripts reach (cjson, cmsgpack, struct, loadstring): whatever they are given they return or raise an
//! error, and what they return goes back through the encoder.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use spinel::resp::reply::{Output, Protocol};
use spinel::resp::value::Value;
use spinel::script::cache::Script;
use spinel::script::host::{Answer, Caller};
use spinel::script::lua::Raise;
use spinel::script::source::ScriptHead;
use spinel::script::vm::{Vm, sha};

/// Scripts that hand their arguments to one library each.
const SCRIPTS: [&str; 4] = [
    "local v = cjson.decode(ARGV[1]) return cjson.encode(v)",
    "local r = {cmsgpack.unpack(ARGV[1])} cmsgpack.unpack_limit(ARGV[1], 3, 1) return cmsgpack.pack(unpack(r))",
    "local r = {pcall(struct.unpack, ARGV[2], ARGV[1])} pcall(struct.size, ARGV[2]) return {struct.pack(ARGV[2], r[2], r[3], r[4])}",
    "return {loadstring(ARGV[1])}",
];

/// Answers nothing, and has no patience.
struct Nobody(u32);

impl Caller for Nobody {
    fn call(&mut self, _: &[&[u8]], reply: &mut Output) -> Answer {
        reply.ok();
        Answer::Replied
    }
    fn permits(&mut self, _: &[&[u8]]) -> Option<bool> {
        None
    }
    fn propagate(&mut self, _: bool, _: bool) {}
    fn log(&mut self, _: u8, _: &[u8]) {}
    fn tick(&mut self) -> Option<Raise> {
        self.0 += 1;
        (self.0 > 100).then(|| Raise::reply("ERR enough"))
    }
}

thread_local! {
    static VM: RefCell<Vm> = RefCell::new(Vm::new());
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, rest)) = data.split_first() else { return };
    let text = SCRIPTS[usize::from(which) % SCRIPTS.len()].as_bytes();
    let (format, bytes) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let script = Script::new(sha(text), text, ScriptHead { flags: None, begin: 0 });
    VM.with_borrow_mut(|vm| {
        vm.compile(&script).expect("these scripts are Lua");
        let mut out = Output::new(Protocol::Resp3);
        vm.run_script(&script.sha, &[], &[bytes, format], &mut Nobody(0));
        vm.finish(&script.sha, &mut out);
        let reply = out.to_vec();
        if !reply.is_empty() {
            let (_, len) = Value::decode(&reply).expect("a reply is well formed").expect("and whole");
            assert_eq!(len, reply.len());
        }
    });
});
