//! Lua's C interface, made safe: a stack of values, functions written in Rust, protected calls.
//!
//! What must stay true: nothing here that a caller can reach jumps over Rust frames. Lua raises an error by a long
//! jump, so functions written in Rust return theirs, and `enter` alone raises it, once every Rust value
//! is gone. Whatever could raise by itself (metamethods, calls) is not offered, or runs protected. Lua's own
//! memory comes from Rust's allocator, and where that has none the process ends: it never becomes an error.
#![allow(unsafe_code, reason = "Lua is a C library")]

use std::alloc::{Layout, handle_alloc_error};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;
use std::{mem, ptr, slice};

use mlua_sys::lua51 as ffi;

use crate::script::debugger::session;
use crate::script::debugger::state::Event;
use crate::script::host::{Caller, Shared};

/// A function that Lua calls: takes its arguments from the stack, pushes its results and says how many.
pub type Native = fn(&mut Lua<'_>) -> Result<usize, Raise>;

/// An error that a function raises in Lua.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raise {
    /// A text, as it is.
    Text(Vec<u8>),
    /// A text, behind the position of whoever called the function.
    Placed(Vec<u8>),
    /// A table with the text of an error reply, `counted` where statistics know of it already.
    Reply {
        /// The reply, its code first.
        text: Vec<u8>,
        /// Whether it was counted as an error of the server when it arose.
        counted: bool,
    },
    /// Whatever is on top of the stack.
    Top,
}

impl Raise {
    /// A text behind the caller's position.
    pub fn placed(text: impl Into<Vec<u8>>) -> Raise {
        Raise::Placed(text.into())
    }

    /// An error reply that no statistics know of.
    pub fn reply(text: impl Into<Vec<u8>>) -> Raise {
        Raise::Reply { text: text.into(), counted: false }
    }
}

/// The types of Lua's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the type of its name")]
pub enum Type {
    None,
    Nil,
    Boolean,
    LightUserdata,
    Number,
    String,
    Table,
    Function,
    Userdata,
    Thread,
}

impl Type {
    /// Its name in error texts.
    pub fn name(self) -> &'static str {
        match self {
            Type::None => "no value",
            Type::Nil => "nil",
            Type::Boolean => "boolean",
            Type::LightUserdata | Type::Userdata => "userdata",
            Type::Number => "number",
            Type::String => "string",
            Type::Table => "table",
            Type::Function => "function",
            Type::Thread => "thread",
        }
    }
}

/// Where a function was when something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether it is none of Lua's own.
    pub native: bool,
    /// The name its chunk was compiled under, `@user_script`.
    pub source: Vec<u8>,
    /// The line, -1 where there is none.
    pub line: i64,
}

/// How a protected call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// Its results are on the stack.
    Done,
    /// The error is on top of the stack.
    Failed,
    /// The same, and the function that handles errors failed as well, or memory did.
    Broken,
}

/// A value that is kept out of the garbage collector's way until [`Lua::forget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept(c_int);

/// A running Lua: an interpreter, or one of its coroutines.
pub struct Lua<'a> {
    l: *mut ffi::lua_State,
    alive: PhantomData<&'a ()>,
}

/// An interpreter of its own.
pub struct Interpreter {
    l: *mut ffi::lua_State,
    /// What its functions share; Lua holds its address.
    shared: Rc<Shared>,
}

// SAFETY: nothing in it belongs to a thread. Lua's memory comes from Rust's allocator, and all that is reachable from the
// state is touched through `&mut self` or by a call that `&mut self` makes; whoever clones `shared` drops the clone before
// the borrow that it came from ends (`Interpreter::shared` is for this module's users, who run on the thread that has it).
unsafe impl Send for Interpreter {}

/// Whom functions ask while a run lasts, and nobody at other times.
#[derive(Default)]
pub struct Lent(Cell<Option<NonNull<dyn Caller>>>);

impl Lent {
    /// Runs `f` and has functions ask `caller` meanwhile.
    pub fn lend<R>(&self, caller: &mut dyn Caller, f: impl FnOnce() -> R) -> R {
        struct Restore<'a>(&'a Cell<Option<NonNull<dyn Caller>>>, Option<NonNull<dyn Caller>>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        // SAFETY: only the lifetime changes, and the pointer is gone before `caller` is free again.
        let caller = unsafe { mem::transmute::<NonNull<dyn Caller + '_>, NonNull<dyn Caller>>(NonNull::from(caller)) };
        let _restore = Restore(&self.0, self.0.replace(Some(caller)));
        f()
    }

    /// Asks; `None` where there is nobody, or it is being asked already.
    pub fn ask<R>(&self, f: impl FnOnce(&mut dyn Caller) -> R) -> Option<R> {
        let mut caller = self.0.take()?;
        // SAFETY: `lend` has it borrowed for as long as the pointer is here, and it was taken away for as long as it is used.
        let answer = f(unsafe { caller.as_mut() });
        self.0.set(Some(caller));
        Some(answer)
    }
}

/// The registry's key of the address of [`Shared`].
const SHARED_KEY: c_int = 1;

unsafe extern "C" fn allocate(_: *mut c_void, old: *mut c_void, old_size: usize, size: usize) -> *mut c_void {
    const ALIGN: usize = 16;
    let layout = |size| Layout::from_size_align(size, ALIGN).expect("Lua asks for less than half the address space");
    // SAFETY: Lua passes the address and size that it was given for a block, or null; blocks all have one alignment.
    unsafe {
        if size == 0 {
            if !old.is_null() {
                std::alloc::dealloc(old.cast(), layout(old_size));
            }
            return ptr::null_mut();
        }
        let new = if old.is_null() {
            std::alloc::alloc(layout(size))
        } else {
            std::alloc::realloc(old.cast(), layout(old_size), size)
        };
        if new.is_null() {
            // An error of Lua's would jump over Rust frames.
            handle_alloc_error(layout(size));
        }
        new.cast()
    }
}

unsafe extern "C-unwind" fn unprotected(_: *mut ffi::lua_State) -> c_int {
    panic!("a Lua error outside of any protected call")
}

/// Runs a function written in Rust, and raises its error when nothing of it is left.
unsafe extern "C-unwind" fn enter(l: *mut ffi::lua_State) -> c_int {
    let results = {
        // SAFETY: `push_native` is the only one who makes closures of `enter`, with such a pointer as their first value.
        let native: Native =
            unsafe { std::mem::transmute(ffi::lua_touserdata(l, ffi::lua_upvalueindex(1)).cast_const()) };
        let mut lua = Lua { l, alive: PhantomData };
        match native(&mut lua) {
            Ok(results) => c_int::try_from(results).unwrap_or(0),
            Err(raise) => {
                lua.push_raise(raise);
                -1
            }
        }
    };
    if results < 0 {
        // SAFETY: the error is on top of the stack, and this frame has nothing left to drop.
        unsafe { ffi::lua_error(l) }
    }
    results
}

/// Pushes what a hook is to raise, if that is anything.
fn push_stop(l: *mut ffi::lua_State, raise: Option<Raise>) -> bool {
    let Some(raise) = raise else { return false };
    let mut lua = Lua { l, alive: PhantomData };
    lua.room(8);
    lua.push_raise(raise);
    true
}

/// Called every so many instructions.
unsafe extern "C-unwind" fn hook(l: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    let raise = {
        let mut lua = Lua { l, alive: PhantomData };
        let raise = lua.shared().tick();
        if raise.is_some() {
            lua.stop();
        }
        raise
    };
    if push_stop(l, raise) {
        // SAFETY: as in `enter`.
        unsafe { ffi::lua_error(l) }
    }
}

/// Called at every line and every so many instructions of a script that is debugged.
unsafe extern "C-unwind" fn debug_hook(l: *mut ffi::lua_State, record: *mut ffi::lua_Debug) {
    // SAFETY: Lua calls a hook with a record that says which event it is.
    let event = if unsafe { (*record).event } == ffi::LUA_HOOKCOUNT { Event::Count } else { Event::Line };
    let raise = session::look(&mut Lua { l, alive: PhantomData }, event);
    if push_stop(l, raise) {
        // SAFETY: as in `enter`.
        unsafe { ffi::lua_error(l) }
    }
}

/// Called every so many instructions of what the debugger runs for its client.
unsafe extern "C-unwind" fn aside_hook(l: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    let raise = session::look_aside(&mut Lua { l, alive: PhantomData });
    if raise.is_some() {
        // It comes back at every line, so that no `pcall` holds it.
        // SAFETY: only the hook of this very state is changed.
        unsafe { ffi::lua_sethook(l, Some(aside_hook), ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT, 1) };
    }
    if push_stop(l, raise) {
        // SAFETY: as in `enter`.
        unsafe { ffi::lua_error(l) }
    }
}

impl Default for Interpreter {
    fn default() -> Interpreter {
        Interpreter::new()
    }
}

impl Interpreter {
    /// An interpreter with Lua's own libraries (base, string, table, math), and nothing of ours.
    pub fn new() -> Interpreter {
        let shared = Rc::new(Shared::default());
        // SAFETY: the state is used by this value only; the libraries are Lua's own and raise nothing but a lack of memory,
        // which `allocate` does not let happen.
        unsafe {
            let l = ffi::lua_newstate(allocate, ptr::null_mut());
            assert!(!l.is_null(), "a new Lua has a state");
            ffi::lua_atpanic(l, unprotected);
            ffi::lua_pushlightuserdata(l, Rc::as_ptr(&shared).cast_mut().cast());
            ffi::lua_rawseti_(l, ffi::LUA_REGISTRYINDEX, SHARED_KEY);
            let libraries: [(&CStr, ffi::lua_CFunction); 4] = [
                (c"", ffi::luaopen_base),
                (c"table", ffi::luaopen_table),
                (c"string", ffi::luaopen_string),
                (c"math", ffi::luaopen_math),
            ];
            for (name, open) in libraries {
                ffi::lua_pushcclosure(l, open, 0);
                ffi::lua_pushstring_(l, name.as_ptr());
                ffi::lua_call(l, 1, 0);
            }
            let mut interpreter = Interpreter { l, shared };
            interpreter.watch();
            interpreter
        }
    }

    /// Its stack.
    pub fn lua(&mut self) -> Lua<'_> {
        Lua { l: self.l, alive: PhantomData }
    }

    /// What its functions share; not to be kept.
    pub fn shared(&self) -> Rc<Shared> {
        self.shared.clone()
    }

    /// Has [`Shared::tick`] called every so often, as it is before anything was stopped.
    pub fn watch(&mut self) {
        // SAFETY: the hook belongs to this state.
        unsafe { ffi::lua_sethook(self.l, Some(hook), ffi::LUA_MASKCOUNT, INSTRUCTIONS_PER_TICK) };
    }

    /// Has [`session::look`] called at every line, and as often as [`Shared::tick`] is otherwise.
    pub fn debug(&mut self) {
        let events = ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT;
        // SAFETY: as in `watch`.
        unsafe { ffi::lua_sethook(self.l, Some(debug_hook), events, INSTRUCTIONS_PER_TICK) };
    }

    /// The memory that its values take, in bytes.
    pub fn memory(&self) -> usize {
        // SAFETY: reading counters of a state that is ours.
        let (kib, rest) =
            unsafe { (ffi::lua_gc(self.l, ffi::LUA_GCCOUNT, 0), ffi::lua_gc(self.l, ffi::LUA_GCCOUNTB, 0)) };
        usize::try_from(kib).unwrap_or(0) * 1024 + usize::try_from(rest).unwrap_or(0)
    }

    /// Collects garbage: a little of it, or all.
    pub fn collect(&mut self, all: bool) {
        // SAFETY: finalizers are Lua's own; scripts cannot make any.
        unsafe {
            ffi::lua_gc(self.l, ffi::LUA_GCRESTART, 0);
            ffi::lua_gc(self.l, if all { ffi::LUA_GCCOLLECT } else { ffi::LUA_GCSTEP }, 1);
        }
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        // SAFETY: nobody else has the state.
        unsafe { ffi::lua_close(self.l) }
    }
}

/// After how many instructions a script is looked at: a fraction of a millisecond.
const INSTRUCTIONS_PER_TICK: c_int = 100_000;

impl Lua<'_> {
    /// What the interpreter's functions share.
    pub fn shared(&self) -> &Shared {
        // SAFETY: the interpreter owns it, put its address there, and outlives its stacks.
        unsafe {
            ffi::lua_rawgeti_(self.l, ffi::LUA_REGISTRYINDEX, SHARED_KEY);
            let shared = ffi::lua_touserdata(self.l, -1).cast_const().cast::<Shared>();
            ffi::lua_settop(self.l, -2);
            &*shared
        }
    }

    /// Has [`Shared::tick`] called at every line from now on: a script cannot catch the error that it raises and go on.
    pub fn stop(&mut self) {
        // SAFETY: only the hook of this very state is changed.
        unsafe { ffi::lua_sethook(self.l, Some(hook), ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT, 1) };
    }

    /// How many values are on the stack.
    pub fn top(&self) -> i32 {
        // SAFETY: reads the stack.
        unsafe { ffi::lua_gettop(self.l) }
    }

    /// Keeps the `top` values at the bottom, or fills up with nil.
    pub fn set_top(&mut self, top: i32) {
        assert!(top >= 0);
        self.room(20);
        // SAFETY: there is room, or fewer values are left.
        unsafe { ffi::lua_settop(self.l, top) }
    }

    /// Drops the `n` values on top.
    pub fn pop(&mut self, n: i32) {
        assert!(n <= self.top());
        // SAFETY: there are so many.
        unsafe { ffi::lua_settop(self.l, -n - 1) }
    }

    /// Makes room for `n` more values; whether there is.
    pub fn room(&mut self, n: i32) -> bool {
        // SAFETY: `lua_checkstack` says no where the limit is reached.
        unsafe { ffi::lua_checkstack(self.l, n) != 0 }
    }

    /// The type of a value.
    pub fn type_of(&self, at: i32) -> Type {
        // SAFETY: any index is answered.
        match unsafe { ffi::lua_type(self.l, at) } {
            ffi::LUA_TNIL => Type::Nil,
            ffi::LUA_TBOOLEAN => Type::Boolean,
            ffi::LUA_TLIGHTUSERDATA => Type::LightUserdata,
            ffi::LUA_TNUMBER => Type::Number,
            ffi::LUA_TSTRING => Type::String,
            ffi::LUA_TTABLE => Type::Table,
            ffi::LUA_TFUNCTION => Type::Function,
            ffi::LUA_TUSERDATA => Type::Userdata,
            ffi::LUA_TTHREAD => Type::Thread,
            _ => Type::None,
        }
    }

    /// The bytes of a string; `None` for anything else, numbers included.
    pub fn bytes(&self, at: i32) -> Option<&[u8]> {
        if self.type_of(at) != Type::String {
            return None;
        }
        let mut len = 0;
        // SAFETY: it is a string, which stays on the stack while `self` is borrowed: whatever takes it away needs `&mut`.
        unsafe {
            let start = ffi::lua_tolstring(self.l, at, &raw mut len);
            Some(slice::from_raw_parts(start.cast(), len))
        }
    }

    /// The text of a string or a number, as Lua writes it.
    pub fn text(&self, at: i32) -> Option<Vec<u8>> {
        if self.type_of(at) != Type::Number {
            return self.bytes(at).map(<[u8]>::to_vec);
        }
        let mut len = 0;
        // SAFETY: the copy is made into a string instead of the value itself, which may be a key that is being walked over.
        unsafe {
            if ffi::lua_checkstack(self.l, 1) == 0 {
                return None;
            }
            ffi::lua_pushvalue(self.l, at);
            let start = ffi::lua_tolstring(self.l, -1, &raw mut len);
            let text = slice::from_raw_parts(start.cast(), len).to_vec();
            ffi::lua_settop(self.l, -2);
            Some(text)
        }
    }

    /// A number, or a string that spells one.
    pub fn number(&self, at: i32) -> Option<f64> {
        // SAFETY: neither changes the value.
        unsafe { (ffi::lua_isnumber(self.l, at) != 0).then(|| ffi::lua_tonumber(self.l, at)) }
    }

    /// Whether a value counts as true.
    pub fn truth(&self, at: i32) -> bool {
        // SAFETY: reads.
        unsafe { ffi::lua_toboolean(self.l, at) != 0 }
    }

    /// Whether a value is the null that `cjson.null` stands for.
    pub fn is_null(&self, at: i32) -> bool {
        // SAFETY: reads.
        self.type_of(at) == Type::LightUserdata && unsafe { ffi::lua_touserdata(self.l, at).is_null() }
    }

    /// What tells a table, a function or a coroutine from others.
    pub fn identity(&self, at: i32) -> usize {
        // SAFETY: reads.
        unsafe { ffi::lua_topointer(self.l, at) as usize }
    }

    /// Pushes nil.
    pub fn push_nil(&mut self) {
        // SAFETY: callers see to room (`room`); Lua gives every native function twenty places.
        unsafe { ffi::lua_pushnil(self.l) }
    }

    /// Pushes a boolean.
    pub fn push_boolean(&mut self, value: bool) {
        // SAFETY: as in `push_nil`.
        unsafe { ffi::lua_pushboolean(self.l, c_int::from(value)) }
    }

    /// Pushes a number.
    pub fn push_number(&mut self, value: f64) {
        // SAFETY: as in `push_nil`.
        unsafe { ffi::lua_pushnumber(self.l, value) }
    }

    /// Pushes a string.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        // SAFETY: Lua copies the bytes.
        unsafe { ffi::lua_pushlstring_(self.l, bytes.as_ptr().cast(), bytes.len()) }
    }

    /// Pushes the null that `cjson.null` stands for.
    pub fn push_null(&mut self) {
        // SAFETY: as in `push_nil`.
        unsafe { ffi::lua_pushlightuserdata(self.l, ptr::null_mut()) }
    }

    /// Pushes a function written in Rust.
    pub fn push_native(&mut self, native: Native) {
        // SAFETY: `enter` finds the pointer where it expects it.
        unsafe {
            ffi::lua_pushlightuserdata(self.l, native as *const () as *mut c_void);
            ffi::lua_pushcclosure(self.l, enter, 1);
        }
    }

    /// Pushes a copy of a value.
    pub fn push_value(&mut self, at: i32) {
        // SAFETY: as in `push_nil`; an index that is none gives nil.
        unsafe { ffi::lua_pushvalue(self.l, at) }
    }

    /// Moves the value on top under the one at `at`.
    pub fn insert(&mut self, at: i32) {
        // SAFETY: callers name a place on the stack.
        unsafe { ffi::lua_insert(self.l, at) }
    }

    /// Moves the value on top into the place at `at`, whose value goes.
    pub fn replace(&mut self, at: i32) {
        // SAFETY: callers name a place on the stack.
        unsafe { ffi::lua_replace(self.l, at) }
    }

    /// Pushes Lua's own `next`.
    pub fn push_own_next(&mut self) {
        match self.shared().own_next.get() {
            Some(kept) => self.push_kept(kept),
            None => self.push_nil(),
        }
    }

    /// Pushes a table with room for so many elements and fields.
    pub fn push_table(&mut self, elements: usize, fields: usize) {
        let most = |n: usize| c_int::try_from(n.min(1 << 24)).unwrap_or(0);
        // SAFETY: as in `push_nil`.
        unsafe { ffi::lua_createtable(self.l, most(elements), most(fields)) }
    }

    /// Replaces the key on top by its value in the table at `at`, metatables aside.
    pub fn raw_get(&mut self, at: i32) {
        assert_eq!(self.type_of(at), Type::Table);
        // SAFETY: it is a table.
        unsafe { ffi::lua_rawget_(self.l, at) }
    }

    /// Pushes element `n` of the table at `at`, metatables aside.
    pub fn raw_element(&mut self, at: i32, n: usize) -> Type {
        assert_eq!(self.type_of(at), Type::Table);
        // SAFETY: it is a table.
        unsafe { ffi::lua_rawgeti_(self.l, at, c_int::try_from(n).unwrap_or(c_int::MAX)) };
        self.type_of(-1)
    }

    /// Pushes a field of the table at `at`, metatables aside.
    pub fn raw_field(&mut self, at: i32, name: &str) -> Type {
        let at = self.absolute(at);
        self.push_bytes(name.as_bytes());
        self.raw_get(at);
        self.type_of(-1)
    }

    /// Takes a value and the key under it from the stack into the table at `at`, metatables aside. The key is neither nil
    /// nor a number that is none.
    pub fn raw_set(&mut self, at: i32) {
        assert_eq!(self.type_of(at), Type::Table);
        let fits = match self.type_of(-2) {
            Type::Nil => false,
            // A text is not read as one.
            Type::Number => self.number(-2).is_some_and(|key| !key.is_nan()),
            _ => true,
        };
        assert!(fits);
        // SAFETY: it is a table, and the key is one.
        unsafe { ffi::lua_rawset(self.l, at) }
    }

    /// Takes the value on top as element `n` of the table at `at`, metatables aside.
    pub fn set_element(&mut self, at: i32, n: usize) {
        assert_eq!(self.type_of(at), Type::Table);
        // SAFETY: it is a table.
        unsafe { ffi::lua_rawseti_(self.l, at, c_int::try_from(n).unwrap_or(c_int::MAX)) }
    }

    /// Takes the value on top as a field of the table at `at`, metatables aside.
    pub fn set_field(&mut self, at: i32, name: &str) {
        let at = self.absolute(at);
        self.push_bytes(name.as_bytes());
        self.insert(-2);
        self.raw_set(at);
    }

    /// Replaces the key on top by the next key and value of the table at `at`; pushes nothing at the end. The key must
    /// be nil or in the table, and nothing may be added to it meanwhile.
    pub fn next(&mut self, at: i32) -> bool {
        assert_eq!(self.type_of(at), Type::Table);
        // SAFETY: it is a table; callers go on with the key that they were given.
        unsafe { ffi::lua_next(self.l, at) != 0 }
    }

    /// Whether `next` would go on from the key at `key`: it is nil or in the table at `at`.
    pub fn has_key(&mut self, at: i32, key: i32) -> bool {
        if self.type_of(key) == Type::Nil {
            return true;
        }
        let at = self.absolute(at);
        self.push_value(key);
        self.raw_get(at);
        let has = self.type_of(-1) != Type::Nil;
        self.pop(1);
        has
    }

    /// The length of a table's array or of a string.
    pub fn raw_len(&self, at: i32) -> usize {
        // SAFETY: reads.
        unsafe { ffi::lua_objlen(self.l, at) }
    }

    /// Takes the table on top as metatable of the value at `at`.
    pub fn set_metatable(&mut self, at: i32) {
        assert!(matches!(self.type_of(-1), Type::Table | Type::Nil));
        // SAFETY: it is a table or nil.
        unsafe { ffi::lua_setmetatable(self.l, at) };
    }

    /// Pushes the metatable of the value at `at`; nothing where there is none.
    pub fn push_metatable(&mut self, at: i32) -> bool {
        // SAFETY: as in `push_nil`.
        unsafe { ffi::lua_getmetatable(self.l, at) != 0 }
    }

    /// Pushes the table of global variables.
    pub fn push_globals(&mut self) {
        // SAFETY: as in `push_nil`.
        unsafe { ffi::lua_pushvalue(self.l, ffi::LUA_GLOBALSINDEX) }
    }

    /// Takes the table on top as that of global variables, for whatever is compiled from now on.
    pub fn set_globals(&mut self) {
        assert_eq!(self.type_of(-1), Type::Table);
        // SAFETY: it is a table.
        unsafe { ffi::lua_replace(self.l, ffi::LUA_GLOBALSINDEX) }
    }

    /// Takes the table on top as that of global variables of the function at `at`.
    pub fn set_environment(&mut self, at: i32) {
        assert_eq!(self.type_of(-1), Type::Table);
        // SAFETY: it is a table.
        unsafe { ffi::lua_setfenv(self.l, at) };
    }

    /// Keeps the value on top, which is taken from the stack.
    pub fn keep(&mut self) -> Kept {
        // SAFETY: the registry is Lua's own place for this.
        Kept(unsafe { ffi::luaL_ref(self.l, ffi::LUA_REGISTRYINDEX) })
    }

    /// Pushes a value that was kept.
    pub fn push_kept(&mut self, kept: Kept) {
        // SAFETY: as in `push_nil`.
        unsafe { ffi::lua_rawgeti_(self.l, ffi::LUA_REGISTRYINDEX, kept.0) }
    }

    /// Keeps a value no longer.
    pub fn forget(&mut self, kept: Kept) {
        // SAFETY: the reference came from `keep`.
        unsafe { ffi::luaL_unref(self.l, ffi::LUA_REGISTRYINDEX, kept.0) }
    }

    /// Compiles text and pushes the function, or the error's text.
    pub fn compile(&mut self, text: &[u8], name: &[u8]) -> bool {
        let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
        let name = CString::new(name).expect("there is no NUL left");
        // A compiled chunk is believed whatever is in it, so it must not be taken for one. Its first byte
        // means nothing to Lua elsewhere.
        let spaced;
        let text = if text.starts_with(&[27]) {
            spaced = [b" ", text].concat();
            &spaced[..]
        } else {
            text
        };
        // SAFETY: compiling is protected by Lua itself.
        unsafe { ffi::luaL_loadbuffer(self.l, text.as_ptr().cast(), text.len(), name.as_ptr()) == 0 }
    }

    /// Calls the function under `arguments` values, with the function at `handler` (0 for none) looking at errors; `results`
    /// -1 for all there are.
    pub fn call(&mut self, arguments: i32, results: i32, handler: i32) -> Called {
        // SAFETY: errors end here.
        match unsafe { ffi::lua_pcall(self.l, arguments, results, handler) } {
            0 => Called::Done,
            ffi::LUA_ERRERR | ffi::LUA_ERRMEM => Called::Broken,
            _ => Called::Failed,
        }
    }

    /// Calls the function on top, from within a hook: it is replaced by its result, or by the error. As a coroutine, for in
    /// the one that is interrupted no hook is called meanwhile; here [`session::look_aside`] is.
    pub fn call_aside(&mut self) -> Called {
        assert_eq!(self.type_of(-1), Type::Function);
        self.room(4);
        // SAFETY: the coroutine stands under the function until that has ended, so it is not collected; errors end here.
        unsafe {
            let aside = ffi::lua_newthread(self.l);
            ffi::lua_insert(self.l, -2);
            ffi::lua_xmove(self.l, aside, 1);
            ffi::lua_sethook(aside, Some(aside_hook), ffi::LUA_MASKCOUNT, INSTRUCTIONS_PER_TICK);
            let ended = ffi::lua_pcall(aside, 0, 1, 0);
            ffi::lua_xmove(aside, self.l, 1);
            ffi::lua_remove(self.l, -2);
            match ended {
                0 => Called::Done,
                ffi::LUA_ERRERR | ffi::LUA_ERRMEM => Called::Broken,
                _ => Called::Failed,
            }
        }
    }

    /// A frame of the running functions: 0 the present one, 1 its caller.
    pub fn frame(&self, level: i32) -> Option<Frame> {
        // SAFETY: the record is filled in before it is read, as far as the letters ask.
        unsafe {
            let mut record: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(self.l, level, &raw mut record) == 0 {
                return None;
            }
            ffi::lua_getinfo(self.l, c"Sl".as_ptr(), &raw mut record);
            Some(Frame {
                native: *record.what == b'C' as c_char,
                source: CStr::from_ptr(record.source).to_bytes().to_vec(),
                line: i64::from(record.currentline),
            })
        }
    }

    /// How the function of a frame was called by whoever called it, if by a name.
    pub fn function_name(&self, level: i32) -> Option<Vec<u8>> {
        // SAFETY: as in `frame`; a name is a string of Lua's that lives as long as the function, or null.
        unsafe {
            let mut record: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(self.l, level, &raw mut record) == 0 {
                return None;
            }
            ffi::lua_getinfo(self.l, c"n".as_ptr(), &raw mut record);
            (!record.name.is_null()).then(|| CStr::from_ptr(record.name).to_bytes().to_vec())
        }
    }

    /// Pushes the value of a frame's local variable `n`, counted from 1, and returns its name; nothing where there is none.
    pub fn push_local(&mut self, level: i32, n: i32) -> Option<Vec<u8>> {
        if n < 1 || !self.room(4) {
            return None;
        }
        // SAFETY: as in `frame`; there is room for the value, and the name lives as long as the function.
        unsafe {
            let mut record: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(self.l, level, &raw mut record) == 0 {
                return None;
            }
            let name = ffi::lua_getlocal(self.l, &raw const record, n);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes().to_vec())
        }
    }

    /// The position of a frame as it begins an error's text: `user_script:1: `, or nothing.
    pub fn position(&mut self, level: i32) -> Vec<u8> {
        self.room(3);
        // SAFETY: pushes one string.
        unsafe { ffi::luaL_where(self.l, level) };
        let text = self.bytes(-1).unwrap_or_default().to_vec();
        self.pop(1);
        text
    }

    /// The value at `at` counted from the bottom.
    pub fn absolute(&self, at: i32) -> i32 {
        if at < 0 && at > ffi::LUA_REGISTRYINDEX { self.top() + at + 1 } else { at }
    }

    /// Pushes an error as scripts see it.
    pub fn push_raise(&mut self, raise: Raise) {
        self.room(6);
        match raise {
            Raise::Text(text) => self.push_bytes(&text),
            Raise::Placed(text) => {
                let whole = [self.position(1), text].concat();
                self.push_bytes(&whole);
            }
            Raise::Reply { text, counted } => {
                self.shared().narrate_error(&text);
                self.push_error_reply(&text, counted);
            }
            Raise::Top => {}
        }
    }

    /// Pushes an error reply: a table with its text.
    pub fn push_error_reply(&mut self, text: &[u8], counted: bool) {
        self.push_table(0, 4);
        self.push_bytes(text);
        self.set_field(-2, "err");
        if counted {
            self.push_boolean(true);
            self.set_field(-2, "ignore_error_stats_update");
        }
    }
}

/// What functions written in Rust ask of their arguments, with Lua's own texts.
impl Lua<'_> {
    /// The error of an argument that is none of what is expected.
    pub fn wrong_type(&self, at: i32, function: &str, expected: &str) -> Raise {
        let got = self.type_of(at).name();
        Raise::placed(format!("bad argument #{at} to '{function}' ({expected} expected, got {got})"))
    }

    /// A number, or a string that spells one.
    pub fn expect_number(&self, at: i32, function: &str) -> Result<f64, Raise> {
        self.number(at).ok_or_else(|| self.wrong_type(at, function, "number"))
    }

    /// A number without its fraction, within 64 bits.
    pub fn expect_integer(&self, at: i32, function: &str) -> Result<i64, Raise> {
        self.expect_number(at, function).map(|number| number as i64)
    }

    /// A table.
    pub fn expect_table(&self, at: i32, function: &str) -> Result<(), Raise> {
        if self.type_of(at) == Type::Table { Ok(()) } else { Err(self.wrong_type(at, function, "table")) }
    }

    /// The bytes of a string or a number.
    pub fn expect_text(&self, at: i32, function: &str) -> Result<Vec<u8>, Raise> {
        self.text(at).ok_or_else(|| self.wrong_type(at, function, "string"))
    }
}
