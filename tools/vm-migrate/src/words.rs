// SPDX-License-Identifier: GPL-2.0

//! The lines that `vm-migrate` and `vm-guest` exchange over a serial port: words `key=value`, separated
//! by spaces.
//!
//! A value has no space in it, except that of `error`, which is the last word and goes to the end of
//! the line. `seq` in a command is repeated in its answer. What each command takes and answers stands
//! in `vm-guest`'s `commands`.

use std::{
    error::Error,
    fmt,
    str::FromStr, //
};

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<(String, String)>);

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Wrong {}

/// The key whose value goes to the end of the line.
const ERROR: &str = "error";

impl Words {
    /// A line without words.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a word. Spaces of a value become `_`, line breaks everywhere become spaces.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        let value = value.to_string().replace(['\n', '\r'], " ");
        let value = match key {
            ERROR => value,
            _ => value.replace(' ', "_"),
        };
        self.0.push((key.into(), value));
        self
    }

    /// Adds a number, which is written in hexadecimal.
    pub fn with_hex(self, key: &str, value: u64) -> Self {
        self.with(key, format_args!("{value:#x}"))
    }

    /// The value of a key, if the line has it.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut words = self.0.iter();
        words.find_map(|(k, v)| (k == key).then_some(v.as_str()))
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// The line does not have it.
    pub fn text(&self, key: &str) -> Result<&str, Wrong> {
        self.get(key)
            .ok_or_else(|| Wrong(format!("no word \"{key}\" in \"{self}\"")))
    }

    /// The value of a key as a number, decimal or hexadecimal with `0x`.
    ///
    /// # Errors
    ///
    /// The line does not have it, or it is no number.
    pub fn number(&self, key: &str) -> Result<u64, Wrong> {
        let text = self.text(key)?;
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map_err(|_| Wrong(format!("\"{key}={text}\" in \"{self}\" is no number")))
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value that goes to the end of the line comes last, wherever it was added.
        let (last, first): (Vec<_>, Vec<_>) = self.0.iter().partition(|(key, _)| key == ERROR);
        for (i, (key, value)) in first.into_iter().chain(last).enumerate() {
            write!(f, "{}{key}={value}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Words {
    type Err = Wrong;

    fn from_str(line: &str) -> Result<Self, Wrong> {
        let mut words = vec![];
        let mut rest = line.trim();
        while !rest.is_empty() {
            let Some((key, after)) = rest.split_once('=') else {
                return Err(Wrong(format!("\"{rest}\" in \"{line}\" is no word")));
            };
            if key.is_empty() || key.contains(char::is_whitespace) {
                return Err(Wrong(format!("\"{key}\" in \"{line}\" is no key")));
            }
            let (value, next) = match key {
                ERROR => (after, ""),
                _ => after.split_once(' ').unwrap_or((after, "")),
            };
            words.push((key.into(), value.into()));
            rest = next.trim_start();
        }
        Ok(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_texts_are_read() -> Result<(), Wrong> {
        let line: Words =
            "seq=4 base=0x1000  port=0000:00:04.0 error=No such file: a=b c".parse()?;
        assert_eq!((line.number("seq")?, line.number("base")?), (4, 0x1000));
        assert_eq!(line.text("port")?, "0000:00:04.0");
        assert_eq!(line.get("error"), Some("No such file: a=b c"));
        assert!(line.text("length").is_err() && line.number("port").is_err());
        Ok(())
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for line in ["rubbish", "a=1 rubbish", "=3", "a=1 b c=2", "[    1.2] a=1"] {
            assert!(line.parse::<Words>().is_err(), "{line}");
        }
    }

    #[test]
    fn an_error_comes_last_and_on_one_line() {
        let line = Words::new()
            .with("error", "two\nlines")
            .with("seq", 1)
            .with("name", "a b");
        assert_eq!(line.to_string(), "seq=1 name=a_b error=two lines");
    }

    proptest! {
        #[test]
        fn every_line_comes_back(keys in prop::collection::vec("[a-z]{1,8}", 0..8), n: u64, s in "[!-~]{0,12}") {
            let line = keys.iter().enumerate().fold(Words::new(), |line, (i, key)| match i % 2 {
                0 => line.with_hex(key, n),
                _ => line.with(key, &s),
            });
            let back: Words = line.to_string().parse()?;
            prop_assert_eq!(back.to_string(), line.to_string());
            for key in &keys {
                prop_assert_eq!(back.get(key), line.get(key));
            }
        }

        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,60}") {
            let _ = line.parse::<Words>();
        }
    }
}
