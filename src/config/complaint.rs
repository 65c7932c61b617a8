//! What is wrong with a configuration: every finding at once, each with its place. A complaint never
//! repeats a line of the file, because any line may hold a secret by mistake.

use std::cell::RefCell;
use std::fmt;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The file as the operator knows it.
    pub file: String,
    /// From 1; 0 when the finding is about the file itself.
    pub line: usize,
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}: {}", self.file, self.text),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no configuration: looked for {looked}; write one with: worker init --tenant NAME --region REGION"
    )]
    Missing { looked: String },
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Complaint>),
}

/// One file under inspection: turns byte offsets into lines and collects what is found.
pub struct Log {
    file: String,
    line_starts: Vec<usize>,
    found: RefCell<Vec<Complaint>>,
    /// Every section with the keys that it knows, for the test of the documentation.
    #[cfg(test)]
    pub known: RefCell<Vec<(String, Vec<&'static str>)>>,
}

impl Log {
    pub fn new(file: impl Into<String>, text: &str) -> Self {
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self {
            file: file.into(),
            line_starts,
            found: RefCell::default(),
            #[cfg(test)]
            known: RefCell::default(),
        }
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Records a finding at a byte offset of the file.
    pub fn complain(&self, offset: usize, text: impl Into<String>) {
        self.complain_line(self.line(offset), text);
    }

    pub fn complain_line(&self, line: usize, text: impl Into<String>) {
        self.found.borrow_mut().push(Complaint {
            file: self.file.clone(),
            line,
            text: text.into(),
        });
    }

    /// All findings, by line.
    pub fn into_complaints(self) -> Vec<Complaint> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|complaint| complaint.line);
        found
    }
}
