//! The names of a recording's files.

/// The file that describes a recording.
pub(crate) const MANIFEST: &str = "recording.json";

/// What a file of an exchange holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// `NN.request.json`
    Request,
    /// `NN.response.sse`
    Stream,
    /// `NN.response.json`
    Body,
}

impl FileKind {
    const ALL: [Self; 3] = [Self::Request, Self::Stream, Self::Body];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Request => ".request.json",
            Self::Stream => ".response.sse",
            Self::Body => ".response.json",
        }
    }

    /// The name of the file in a folder.
    pub(crate) fn file_name(self, number: usize) -> String {
        format!("{number:02}{}", self.suffix())
    }
}

/// Reads a file name; `None` if it is not that of an exchange's file.
pub(crate) fn parse_name(name: &str) -> Option<(usize, FileKind)> {
    FileKind::ALL.into_iter().find_map(|part| {
        let digits = name.strip_suffix(part.suffix())?;
        let number = digits.bytes().all(|byte| byte.is_ascii_digit());
        number
            .then(|| digits.parse().ok())?
            .map(|number| (number, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for number in [1, 9, 10, 99, 100, 1234] {
            for part in FileKind::ALL {
                assert_eq!(parse_name(&part.file_name(number)), Some((number, part)));
            }
        }
        for name in [
            "",
            ".request.json",
            "a.request.json",
            "+1.request.json",
            "1.sse",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
