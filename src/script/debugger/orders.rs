//! What the client of a session says: arrays of bulk strings, each an order to the debugger.
//!
//! This is the debugger's own reading of the protocol, and it forgives more than that of requests: what stands before
//! the first `*` is skipped. It bounds more, too: an order has 1024 words of 1024 bytes at most.

/// At most so many words, and so many bytes in each.
const MOST: i64 = 1024;

/// The bytes are no array of bulk strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes the first whole order from `input`; `None` where it is not whole yet.
///
/// # Errors
/// The client does not speak the protocol.
pub fn take(input: &mut Vec<u8>) -> Result<Option<Vec<Vec<u8>>>, Malformed> {
    let Some((words, end)) = parse(input)? else { return Ok(None) };
    input.drain(..end);
    Ok(Some(words))
}

/// Words, and where they end.
type Parsed = Option<(Vec<Vec<u8>>, usize)>;

fn parse(input: &[u8]) -> Result<Parsed, Malformed> {
    if input.is_empty() {
        return Ok(None);
    }
    let star = memchr::memchr(b'*', input).ok_or(Malformed)?;
    let Some((count, mut at)) = number(input, star + 1) else { return Ok(None) };
    if !(1..=MOST).contains(&count) {
        return Err(Malformed);
    }
    let mut words = Vec::new();
    for _ in 0..count {
        match input.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(_) => return Err(Malformed),
        }
        let Some((len, begin)) = number(input, at + 1) else { return Ok(None) };
        let len = usize::try_from(len).ok().filter(|len| (1..=MOST as usize).contains(len)).ok_or(Malformed)?;
        let Some(word) = input.get(begin..begin + len + 2) else { return Ok(None) };
        words.push(word.strip_suffix(b"\r\n").ok_or(Malformed)?.to_vec());
        at = begin + len + 2;
    }
    Ok(Some((words, at)))
}

/// The number that begins the line at `at`, 0 for none, and where the next line begins; `None` where that has not come.
fn number(input: &[u8], at: usize) -> Option<(i64, usize)> {
    let line = &input[at..];
    let end = memchr::memmem::find(line, b"\r\n")?;
    Some((leading_number(&line[..end]), at + end + 2))
}

/// The number that a text begins with, 0 for none, as C reads it.
pub fn leading_number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (minus, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let value = digits.iter().map_while(|byte| byte.is_ascii_digit().then(|| i64::from(byte - b'0')));
    // No count comes near these bounds.
    let value = value.fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(digit));
    let value = value.min(i64::from(i32::MAX));
    if minus { -value } else { value }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order<'w> {
    /// Tell what there is to order.
    Help,
    /// Run to the next line.
    Step,
    /// Run to the next breakpoint.
    Continue,
    /// Show source lines around this one, or the present one.
    List {
        /// The line in the middle.
        around: Option<i64>,
        /// How many before and after it.
        context: i64,
    },
    /// Show all source lines.
    Whole,
    /// Show all local variables.
    PrintAll,
    /// Show one variable.
    Print(&'w [u8]),
    /// Show, set and remove breakpoints.
    Break(&'w [Vec<u8>]),
    /// Show who called whom.
    Trace,
    /// Run a piece of Lua.
    Eval(Vec<u8>),
    /// Run a command.
    Call(&'w [Vec<u8>]),
    /// Set the length of what is shown, or only show it.
    Limit(Option<i64>),
    /// End the script.
    Abort,
    /// There is no such order.
    Unknown,
}

impl Order<'_> {
    /// What an order's words mean. The first is read up to its first NUL byte, in either case.
    pub fn of(words: &[Vec<u8>]) -> Order<'_> {
        let name = c_text(words.first().map_or(&b""[..], Vec::as_slice)).to_ascii_lowercase();
        let rest = words.get(1..).unwrap_or_default();
        let number = |at: usize| rest.get(at).map(|word| leading_number(word));
        match &name[..] {
            b"h" | b"help" => Order::Help,
            b"s" | b"step" | b"n" | b"next" => Order::Step,
            b"c" | b"continue" => Order::Continue,
            b"l" | b"list" => {
                const CONTEXT: i64 = 5;
                Order::List { around: number(0).filter(|line| *line > 0), context: number(1).unwrap_or(CONTEXT) }
            }
            b"w" | b"whole" => Order::Whole,
            b"p" | b"print" => match rest {
                [name] => Order::Print(c_text(name)),
                _ => Order::PrintAll,
            },
            b"b" | b"break" => Order::Break(rest),
            b"t" | b"trace" => Order::Trace,
            b"e" | b"eval" => Order::Eval(rest.join(&b' ')),
            b"r" | b"redis" | b"server" if !rest.is_empty() => Order::Call(rest),
            b"m" | b"maxlen" => Order::Limit(number(0).filter(|_| rest.len() == 1)),
            b"a" | b"abort" => Order::Abort,
            _ => Order::Unknown,
        }
    }
}

/// What C would take for the text.
fn c_text(word: &[u8]) -> &[u8] {
    word.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    /// The orders in `input`, of which what is left stays, and whether that may yet become one.
    fn all(input: &mut Vec<u8>) -> (Vec<Vec<Vec<u8>>>, bool) {
        let mut orders = Vec::new();
        loop {
            match take(input) {
                Ok(Some(order)) => orders.push(order),
                end => return (orders, end.is_ok()),
            }
        }
    }

    #[test]
    fn orders_come_one_by_one_and_what_is_not_whole_stays() {
        let mut input = b"x*1\r\n$1\r\ns\r\n*2\r\n$1\r\np\r\n$3\r\na\0b\r\n*1\r\n$4\r\nhe".to_vec();
        let (orders, is_open) = all(&mut input);
        assert_eq!(orders, [vec![b"s".to_vec()], vec![b"p".to_vec(), b"a\0b".to_vec()]]);
        assert!(is_open);
        assert_eq!(input, b"*1\r\n$4\r\nhe");
    }

    #[test]
    fn what_is_no_array_of_bulk_strings_is_refused() {
        for bad in [
            "PING\r\n",
            "*0\r\n",
            "*-1\r\n",
            "*x\r\n",
            "*1025\r\n",
            "*1\r\nabc\r\n",
            "*1\r\n$0\r\n\r\n",
            "*1\r\n$x\r\na\r\n",
            "*1\r\n$1025\r\n",
            "*1\r\n$3\r\nabcde\r\n",
        ] {
            assert_eq!(take(&mut bad.as_bytes().to_vec()), Err(Malformed), "{bad:?}");
        }
        for open in ["", "*", "*1", "*1\r", "*1\r\n", "*1\r\n$", "*1\r\n$3\r\nab", "*1\r\n$3\r\nabc\r"] {
            assert_eq!(take(&mut open.as_bytes().to_vec()), Ok(None), "{open:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_is_too_much_and_every_order_is_read_back(
            mut garbage in proptest::collection::vec(any::<u8>(), 0..80),
            order in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 1..5),
        ) {
            let before = garbage.len();
            all(&mut garbage);
            prop_assert!(garbage.len() <= before);
            let mut bytes = format!("*{}\r\n", order.len()).into_bytes();
            for word in &order {
                bytes.extend(format!("${}\r\n", word.len()).bytes().chain(word.iter().copied()).chain(*b"\r\n"));
            }
            for cut in 0..bytes.len() {
                prop_assert_eq!(take(&mut bytes[..cut].to_vec()), Ok(None));
            }
            prop_assert_eq!(take(&mut bytes), Ok(Some(order)));
        }
    }

    #[test]
    fn each_order_has_a_long_and_a_short_name_in_either_case() {
        for (line, order) in [
            ("h", Order::Help),
            ("HELP me", Order::Help),
            ("S", Order::Step),
            ("next", Order::Step),
            ("continue", Order::Continue),
            ("l", Order::List { around: None, context: 5 }),
            ("list 0", Order::List { around: None, context: 5 }),
            ("l 7x 2", Order::List { around: Some(7), context: 2 }),
            ("l -7 -2 9", Order::List { around: None, context: -2 }),
            ("w", Order::Whole),
            ("p", Order::PrintAll),
            ("p a", Order::Print(b"a")),
            ("p a b", Order::PrintAll),
            ("t", Order::Trace),
            ("e 1 + 1", Order::Eval(b"1 + 1".to_vec())),
            ("eval", Order::Eval(Vec::new())),
            ("r", Order::Unknown),
            ("m", Order::Limit(None)),
            ("m 5", Order::Limit(Some(5))),
            ("m 5 6", Order::Limit(None)),
            ("maxlen x", Order::Limit(Some(0))),
            ("a", Order::Abort),
            ("s\0tep", Order::Step),
            ("step\0", Order::Step),
            ("\0s", Order::Unknown),
            ("restart", Order::Unknown),
        ] {
            assert_eq!(Order::of(&words(line)), order, "{line:?}");
        }
        for line in ["redis get a", "r get a", "server get a"] {
            assert_eq!(Order::of(&words(line)), Order::Call(&words("get a")));
        }
        assert_eq!(Order::of(&words("b 1 -2")), Order::Break(&words("1 -2")));
    }

    #[test]
    fn numbers_are_read_as_far_as_they_go() {
        let read = [(" 12x", 12), ("-3", -3), ("+4", 4), ("x", 0), ("", 0), ("99999999999999999999", 2_147_483_647)];
        for (text, number) in read {
            assert_eq!(leading_number(text.as_bytes()), number, "{text:?}");
        }
    }
}
