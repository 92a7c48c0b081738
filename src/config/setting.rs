//! What every value of a directive can do, and the plain ones: yes/no, numbers, text.
//!
//! A value is read from words, printed for CONFIG GET, and written for CONFIG REWRITE. What is printed
//! can be read again and is then the same; what is written to a file too.

use super::memory::{format_bytes, parse_bytes};
use crate::stdx::words::quoted;

/// Why a value was refused: Redis' words, without the name of the directive.
pub type Reason = String;

/// Whether a value stands for itself or adds to what an earlier line of the file said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The first mention in a file, or CONFIG SET.
    Replace,
    /// The directive was mentioned before; only `save` adds up.
    Add,
}

/// What CONFIG REWRITE makes of one directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// No line: what the file says about it is removed.
    Nothing,
    /// These lines, each with whether it is to be appended where the file has no line for it.
    Lines(Vec<(Vec<u8>, bool)>),
}

impl Written {
    /// The one line `name value`.
    pub fn line(name: &str, value: &[u8], append: bool) -> Written {
        Written::Lines(vec![([name.as_bytes(), b" ", value].concat(), append)])
    }
}

/// The value of a directive.
pub trait Setting: Sized + PartialEq {
    /// What is acceptable beyond the type: bounds, a check.
    type Rule: Copy;

    /// Whether it is made of any number of words.
    const MANY: bool = false;

    /// Reads the value from the words after the name. On error nothing has changed.
    ///
    /// There is exactly one word unless [`Setting::MANY`].
    fn assign(&mut self, words: &[Vec<u8>], rule: Self::Rule, manner: Manner) -> Result<(), Reason>;

    /// The value as CONFIG GET prints it.
    fn text(&self, rule: Self::Rule) -> Vec<u8>;

    /// The value as a file has it.
    fn written(&self, default: &Self, rule: Self::Rule, name: &str) -> Written {
        Written::line(name, &self.text(rule), self != default)
    }

    /// What may be written, for the documentation.
    fn accepts(rule: Self::Rule) -> String;
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Decimal digits.
    Decimal,
    /// An amount of memory: `64mb`.
    Memory,
    /// Octal digits: permissions of a file.
    Octal,
}

/// The bounds of a number, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The least that is accepted.
    pub least: i128,
    /// The most that is accepted.
    pub most: i128,
    /// How it is written.
    pub form: Form,
}

/// A decimal number from `least` to `most`.
pub const fn within(least: i128, most: i128) -> Range {
    Range { least, most, form: Form::Decimal }
}

/// An amount of memory from `least` to `most` bytes.
pub const fn bytes(least: i128, most: i128) -> Range {
    Range { least, most, form: Form::Memory }
}

/// Permission bits, in octal.
pub const fn permissions() -> Range {
    Range { least: 0, most: 0o777, form: Form::Octal }
}

impl Range {
    fn parse(self, text: &[u8]) -> Result<i128, Reason> {
        let (number, otherwise) = match self.form {
            Form::Decimal => (parse_decimal(text).map(i128::from), "argument couldn't be parsed into an integer"),
            Form::Memory => {
                (parse_bytes(text).map(|n| n.min(u64::MAX.into()) as i128), "argument must be a memory value")
            }
            Form::Octal => (parse_lenient(text, 8), "argument couldn't be parsed as an octal number"),
        };
        let number = number.ok_or(otherwise)?;
        if number < self.least || number > self.most { Err(self.out_of_range()) } else { Ok(number) }
    }

    fn out_of_range(self) -> Reason {
        let Range { least, most, form } = self;
        match form {
            Form::Octal => format!("argument must be between {least:o} and {most:o} inclusive"),
            _ => format!("argument must be between {least} and {most} inclusive"),
        }
    }

    fn print(self, number: i128) -> String {
        if self.form == Form::Octal { format!("{number:o}") } else { number.to_string() }
    }
}

/// A number as Redis writes it: no sign but `-`, no leading zeros, no blanks.
fn parse_decimal(text: &[u8]) -> Option<i64> {
    let canonical = match text {
        b"0" => true,
        [b'-', b'1'..=b'9', rest @ ..] | [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// A number as the C library reads it: blanks in front, any sign, no digits at all are 0; cut to the
/// bounds of `i64`. `None` if anything follows the digits.
pub fn parse_lenient(text: &[u8], radix: u8) -> Option<i128> {
    let start = text.iter().position(|b| !b.is_ascii_whitespace() && *b != 0x0b).unwrap_or(text.len());
    let (negative, digits) = match &text[start..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() && !text.is_empty() {
        return None;
    }
    let mut number: i128 = 0;
    for &byte in digits {
        if !(b'0'..b'0' + radix).contains(&byte) {
            return None;
        }
        number = number.saturating_mul(i128::from(radix)).saturating_add(i128::from(byte - b'0'));
    }
    Some(if negative { -number } else { number }.clamp(i64::MIN.into(), i64::MAX.into()))
}

macro_rules! numbers {
    ($($number:ty)+) => {$(
        impl Setting for $number {
            type Rule = Range;

            fn assign(&mut self, words: &[Vec<u8>], rule: Range, _: Manner) -> Result<(), Reason> {
                let number = rule.parse(one(words)?)?;
                *self = <$number>::try_from(number).map_err(|_| rule.out_of_range())?;
                Ok(())
            }

            fn text(&self, rule: Range) -> Vec<u8> {
                rule.print(i128::from(*self)).into_bytes()
            }

            fn written(&self, default: &Self, rule: Range, name: &str) -> Written {
                let number = i128::from(*self);
                let text = match (rule.form, u128::try_from(number)) {
                    (Form::Memory, Ok(bytes)) => format_bytes(bytes),
                    _ => rule.print(number),
                };
                Written::line(name, text.as_bytes(), self != default)
            }

            fn accepts(rule: Range) -> String {
                let Range { least, most, form } = rule;
                match form {
                    Form::Decimal => format!("integer, {least} to {most}"),
                    Form::Memory => format!("memory, {least} to {most} bytes"),
                    Form::Octal => format!("octal, {least:o} to {most:o}"),
                }
            }
        }
    )+};
}

numbers!(u8 u16 u32 u64 i32 i64);

/// The only word there is.
pub fn one(words: &[Vec<u8>]) -> Result<&[u8], Reason> {
    match words {
        [word] => Ok(word),
        _ => Err("wrong number of arguments".into()),
    }
}

impl Setting for bool {
    /// Why `yes` is not to be had, if it is not.
    type Rule = Option<&'static str>;

    fn assign(&mut self, words: &[Vec<u8>], refusal: Self::Rule, _: Manner) -> Result<(), Reason> {
        *self = match (one(words)?.to_ascii_lowercase().as_slice(), refusal) {
            (b"yes", Some(refusal)) => return Err(refusal.into()),
            (b"yes", None) => true,
            (b"no", _) => false,
            _ => return Err("argument must be 'yes' or 'no'".into()),
        };
        Ok(())
    }

    fn text(&self, _: Self::Rule) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }

    fn accepts(refusal: Self::Rule) -> String {
        if refusal.is_some() { "no".into() } else { "yes, no".into() }
    }
}

/// A check of a text: the reason why it is refused.
pub type Check = fn(&[u8]) -> Result<(), &'static str>;

/// Accepts every text.
pub fn anything(_: &[u8]) -> Result<(), &'static str> {
    Ok(())
}

/// Text, empty or not.
impl Setting for Vec<u8> {
    type Rule = Check;

    fn assign(&mut self, words: &[Vec<u8>], check: Check, _: Manner) -> Result<(), Reason> {
        let word = one(words)?;
        check(word)?;
        *self = word.to_vec();
        Ok(())
    }

    fn text(&self, _: Check) -> Vec<u8> {
        self.clone()
    }

    fn written(&self, default: &Self, _: Check, name: &str) -> Written {
        Written::line(name, &quoted(self), self != default)
    }

    fn accepts(_: Check) -> String {
        "text".into()
    }
}

/// Text that may be missing: empty means missing.
impl Setting for Option<Vec<u8>> {
    type Rule = Check;

    fn assign(&mut self, words: &[Vec<u8>], check: Check, _: Manner) -> Result<(), Reason> {
        let word = one(words)?;
        check(word)?;
        *self = (!word.is_empty()).then(|| word.to_vec());
        Ok(())
    }

    fn text(&self, _: Check) -> Vec<u8> {
        self.clone().unwrap_or_default()
    }

    /// A missing text is missing in the file too: that is how it stays missing.
    fn written(&self, default: &Self, _: Check, name: &str) -> Written {
        match self {
            Some(text) => Written::line(name, &quoted(text), self != default),
            None => Written::Nothing,
        }
    }

    fn accepts(_: Check) -> String {
        "text, or empty for none".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set<T: Setting>(mut value: T, rule: T::Rule, word: &str) -> Result<T, Reason> {
        value.assign(&[word.as_bytes().to_vec()], rule, Manner::Replace).map(|()| value)
    }

    #[test]
    fn integers_are_read_strictly() {
        let rule = within(-5, 100);
        assert_eq!(set(0i32, rule, "-5"), Ok(-5));
        assert_eq!(set(0i32, rule, "100"), Ok(100));
        for bad in ["", "+1", "01", " 1", "1 ", "-0", "0x1", "1k", "9223372036854775808"] {
            assert_eq!(set(0i32, rule, bad), Err("argument couldn't be parsed into an integer".into()), "{bad}");
        }
        assert_eq!(set(0i32, rule, "101"), Err("argument must be between -5 and 100 inclusive".into()));
    }

    #[test]
    fn permissions_are_octal_in_and_out() {
        assert_eq!(set(0u32, permissions(), "0770"), Ok(0o770));
        assert_eq!(0o700u32.text(permissions()), b"700");
        assert_eq!(set(0u32, permissions(), "1000"), Err("argument must be between 0 and 777 inclusive".into()));
        assert_eq!(set(0u32, permissions(), "9"), Err("argument couldn't be parsed as an octal number".into()));
    }

    #[test]
    fn memory_is_printed_plainly_and_written_with_its_unit() {
        let rule = bytes(1, i64::MAX.into());
        assert_eq!(set(0u64, rule, "10MB"), Ok(10 << 20));
        assert_eq!((10u64 << 20).text(rule), b"10485760");
        assert_eq!((10u64 << 20).written(&1, rule, "x"), Written::line("x", b"10mb", true));
        assert_eq!(set(0u64, rule, "10x"), Err("argument must be a memory value".into()));
        assert_eq!(set(0u64, rule, "0"), Err("argument must be between 1 and 9223372036854775807 inclusive".into()));
    }

    #[test]
    fn yes_and_no_in_any_case() {
        assert_eq!(set(false, None, "YES"), Ok(true));
        assert_eq!(set(true, None, "nO"), Ok(false));
        assert_eq!(set(true, None, "true"), Err("argument must be 'yes' or 'no'".into()));
        assert_eq!(set(false, Some("not here"), "yes"), Err("not here".into()));
        assert_eq!(set(true, Some("not here"), "no"), Ok(false));
    }

    #[test]
    fn an_empty_text_may_mean_none() {
        assert_eq!(set(Some(b"x".to_vec()), anything, ""), Ok(None));
        assert_eq!(set(b"x".to_vec(), anything, ""), Ok(vec![]));
        assert_eq!(None.written(&Some(b"x".to_vec()), anything, "x"), Written::Nothing);
    }

    proptest! {
        #[test]
        fn lenient_numbers_agree_with_strict_ones(number: i64) {
            let text = number.to_string();
            prop_assert_eq!(parse_lenient(text.as_bytes(), 10), Some(number.into()));
            prop_assert_eq!(parse_decimal(text.as_bytes()), Some(number));
        }
    }
}
