//! One table of the file, read key by key. Asking for a key makes it known; what nobody asked for is
//! refused at the end with the nearest key that was. A getter answers `None` both for an absent key
//! and for a wrong one: the wrong one is in the log, so no configuration comes of it.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::complaint::Log;
use super::nearest::nearest;
use super::unit;

pub struct Section<'a, 'i> {
    /// `tenants.acme.auth`; empty for the top of the file.
    name: String,
    table: &'a DeTable<'i>,
    offset: usize,
    asked: RefCell<Vec<&'static str>>,
    pub log: &'a Log,
}

/// A value and where its key stands.
pub struct Found<T> {
    pub value: T,
    pub line: usize,
}

impl<'a, 'i> Section<'a, 'i> {
    pub fn new(name: String, table: &'a DeTable<'i>, offset: usize, log: &'a Log) -> Self {
        Self {
            name,
            table,
            offset,
            asked: RefCell::default(),
            log,
        }
    }

    /// `[tenants.acme.auth]`, or words for the top.
    pub fn title(&self) -> String {
        match self.name.as_str() {
            "" => "the top of the file".to_owned(),
            name => format!("[{name}]"),
        }
    }

    /// `worker.toml:14`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.log.file(), self.log.line(self.offset))
    }

    /// Records a finding about the section itself, such as a missing key.
    pub fn complain(&self, text: impl Into<String>) {
        self.log.complain(self.offset, text);
    }

    fn get(&self, key: &'static str) -> Option<(usize, &'a Spanned<DeValue<'i>>)> {
        self.asked.borrow_mut().push(key);
        self.table
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(name, value)| (name.span().start, value))
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// Makes a key known without reading it.
    pub fn know(&self, key: &'static str) {
        self.asked.borrow_mut().push(key);
    }

    fn wrong(&self, at: usize, key: &str, what: &str) {
        self.log
            .complain(at, format!("{key} in {} {what}", self.title()));
    }

    pub fn text(&self, key: &'static str) -> Option<Found<String>> {
        let (at, value) = self.get(key)?;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong(at, key, "must be a text in double quotes");
            return None;
        };
        Some(Found {
            value: text.clone().into_owned(),
            line: self.log.line(at),
        })
    }

    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let (at, value) = self.get(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.wrong(at, key, "must be true or false");
            return None;
        };
        Some(*flag)
    }

    pub fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let (at, value) = self.get(key)?;
        let count = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if count.is_none_or(|count| !range.contains(&count)) {
            let (low, high) = (range.start(), range.end());
            self.wrong(
                at,
                key,
                &format!("must be a whole number from {low} to {high}"),
            );
            return None;
        }
        count
    }

    pub fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let span = self.quantity(key, "30s", unit::duration)?;
        if !range.contains(&span.value) {
            let (low, high) = (range.start(), range.end());
            let text = format!("{key} in {} must be from {low:?} to {high:?}", self.title());
            self.log.complain_line(span.line, text);
            return None;
        }
        Some(span.value)
    }

    pub fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let size = self.quantity(key, "64MiB", unit::size)?;
        if !range.contains(&size.value) {
            let text = format!(
                "{key} in {} must be from {} to {} bytes",
                self.title(),
                range.start(),
                range.end()
            );
            self.log.complain_line(size.line, text);
            return None;
        }
        Some(size.value)
    }

    fn quantity<T>(
        &self,
        key: &'static str,
        example: &'static str,
        read: impl Fn(&str) -> Result<T, unit::UnitError>,
    ) -> Option<Found<T>> {
        let (at, value) = self.get(key)?;
        let read = match value.get_ref() {
            DeValue::String(text) => read(text),
            _ => Err(unit::UnitError::NoUnit { example }),
        };
        match read {
            Ok(value) => Some(Found {
                value,
                line: self.log.line(at),
            }),
            Err(error) => {
                self.wrong(at, key, &error.to_string());
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let found = self.text(key)?;
        let choice = words.iter().find(|(word, _)| *word == found.value);
        if choice.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let text = format!("{key} in {} must be {}", self.title(), known.join(" or "));
            self.log.complain_line(found.line, text);
        }
        choice.map(|(_, value)| *value)
    }

    pub fn texts(&self, key: &'static str) -> Option<Found<Vec<String>>> {
        let (at, value) = self.get(key)?;
        let texts = match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Some(text.clone().into_owned()),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        if texts.is_none() {
            self.wrong(
                at,
                key,
                "must be a list of texts, such as [\"one\", \"two\"]",
            );
        }
        Some(Found {
            value: texts?,
            line: self.log.line(at),
        })
    }

    /// The table under `key`; `None` if there is none.
    pub fn section(&self, key: &'static str) -> Option<Section<'a, 'i>> {
        let (at, value) = self.get(key)?;
        self.as_section(key, at, value)
    }

    /// Every entry of this table as a table of its own: its key is a name, not a setting.
    pub fn named_sections(&self) -> Vec<(String, Section<'a, 'i>)> {
        self.table
            .iter()
            .filter_map(|(name, value)| {
                let section = self.as_section(name.get_ref(), name.span().start, value)?;
                Some((name.get_ref().clone().into_owned(), section))
            })
            .collect()
    }

    fn as_section(
        &self,
        key: &str,
        at: usize,
        value: &'a Spanned<DeValue<'i>>,
    ) -> Option<Section<'a, 'i>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(at, key, "must be a table");
            return None;
        };
        let name = match self.name.as_str() {
            "" => key.to_owned(),
            outer => format!("{outer}.{key}"),
        };
        Some(Section::new(name, table, at, self.log))
    }

    /// Two spellings of one setting: says so if both stand there.
    pub fn one_spelling(&self, ours: &'static str, theirs: &'static str) {
        if self.has(ours)
            && let Some((at, _)) = self.get(theirs)
        {
            self.wrong(
                at,
                theirs,
                &format!("is another spelling of {ours:?}: keep one"),
            );
        }
    }

    /// Lets every key pass: what the table is about was complained of.
    pub fn forgive(self) {}

    /// Refuses every key that nobody asked for. Call last.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        #[cfg(test)]
        self.log
            .known
            .borrow_mut()
            .push((self.name.clone(), asked.clone()));
        for (name, _) in self.table {
            if asked.contains(&name.get_ref().as_ref()) {
                continue;
            }
            let hint = match nearest(name.get_ref(), asked.iter().copied()) {
                Some(known) => format!("; did you mean {known:?}?"),
                None => String::new(),
            };
            let place = self.title();
            let text = format!("unknown key {:?} in {place}{hint}", name.get_ref());
            self.log.complain(name.span().start, text);
        }
    }
}
