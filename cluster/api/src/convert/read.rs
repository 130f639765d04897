//! Questions and answers of one view.

use bytes::Bytes;

use super::{Malformed, QUESTIONS_MAX, Result, at_most, number, required, size};
use crate::keyspace::{
    Answer, DirectoryAnswer, ListAnswer, ListEntry, ListRead, Read, ReadAnswer, Revision, Time,
};
use crate::wire::revfs as wire;
use crate::wire::revfs::{answer, question};

impl From<Read> for wire::Question {
    fn from(read: Read) -> Self {
        let question = match read {
            Read::Range(range) => question::Question::Range(range.into()),
            Read::List(list) => question::Question::List(question::List {
                directory: list.directory,
                after: list.after,
                limit: number(list.limit),
                with_values: list.with_values,
            }),
            Read::Directory(directory) => question::Question::Directory(directory),
        };
        Self { question: Some(question) }
    }
}

/// A directory is a prefix that is empty or ends in `/`.
fn directory(prefix: Bytes, message: &'static str) -> Result<Bytes> {
    if prefix.last().is_some_and(|&last| last != b'/') {
        let text = prefix.escape_ascii();
        return Err(Malformed::new(message, format!("directory {text} does not end in /")));
    }
    Ok(prefix)
}

impl TryFrom<wire::Question> for Read {
    type Error = Malformed;

    fn try_from(read: wire::Question) -> Result<Self> {
        Ok(match required(read.question, "Question", "question")? {
            question::Question::Range(range) => Self::Range(range.try_into()?),
            question::Question::List(list) => Self::List(ListRead {
                directory: directory(list.directory, "Question.List")?,
                after: list.after,
                limit: size(list.limit),
                with_values: list.with_values,
            }),
            question::Question::Directory(prefix) => {
                Self::Directory(directory(prefix, "Question")?)
            }
        })
    }
}

/// A [`wire::ReadRequest`] from what [`crate::KeySpace::read`] takes.
#[must_use]
pub fn read_request(revision: Revision, reads: Vec<Read>) -> wire::ReadRequest {
    wire::ReadRequest {
        revision: revision.0,
        questions: reads.into_iter().map(Into::into).collect(),
        serializable: false,
    }
}

/// What [`crate::KeySpace::read`] takes from a [`wire::ReadRequest`].
///
/// # Errors
/// [`Malformed`] if a question has no meaning or there are more than [`QUESTIONS_MAX`].
pub fn read_arguments(request: wire::ReadRequest) -> Result<(Revision, Vec<Read>)> {
    at_most(request.questions.len(), QUESTIONS_MAX, "ReadRequest", "questions")?;
    let reads = request.questions.into_iter().map(Read::try_from).collect::<Result<_>>()?;
    Ok((Revision(request.revision), reads))
}

impl From<DirectoryAnswer> for wire::Directory {
    fn from(directory: DirectoryAnswer) -> Self {
        Self { names: directory.names, changed: directory.changed.0, time: directory.time.0 }
    }
}

impl From<wire::Directory> for DirectoryAnswer {
    fn from(directory: wire::Directory) -> Self {
        Self {
            names: directory.names,
            changed: Revision(directory.changed),
            time: Time(directory.time),
        }
    }
}

impl From<ListEntry> for wire::ListEntry {
    fn from(entry: ListEntry) -> Self {
        Self {
            name: entry.name,
            kv: entry.kv.map(Into::into),
            directory: entry.directory.map(Into::into),
        }
    }
}

impl From<wire::ListEntry> for ListEntry {
    fn from(entry: wire::ListEntry) -> Self {
        Self {
            name: entry.name,
            kv: entry.kv.map(Into::into),
            directory: entry.directory.map(Into::into),
        }
    }
}

impl From<Answer> for wire::Answer {
    fn from(answer: Answer) -> Self {
        let answer = match answer {
            Answer::Range(range) => answer::Answer::Range(range.into()),
            Answer::List(list) => answer::Answer::List(wire::ListAnswer {
                entries: list.entries.into_iter().map(Into::into).collect(),
                more: list.more,
            }),
            Answer::Directory(directory) => answer::Answer::Directory(directory.into()),
        };
        Self { answer: Some(answer) }
    }
}

impl TryFrom<wire::Answer> for Answer {
    type Error = Malformed;

    fn try_from(answer: wire::Answer) -> Result<Self> {
        Ok(match required(answer.answer, "Answer", "answer")? {
            answer::Answer::Range(range) => Self::Range(range.into()),
            answer::Answer::List(list) => Self::List(ListAnswer {
                entries: list.entries.into_iter().map(Into::into).collect(),
                more: list.more,
            }),
            answer::Answer::Directory(directory) => Self::Directory(directory.into()),
        })
    }
}

impl From<ReadAnswer> for wire::ReadResponse {
    fn from(answer: ReadAnswer) -> Self {
        Self {
            revision: answer.revision.0,
            current: answer.current.0,
            answers: answer.answers.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ReadResponse> for ReadAnswer {
    type Error = Malformed;

    fn try_from(response: wire::ReadResponse) -> Result<Self> {
        Ok(Self {
            revision: Revision(response.revision),
            current: Revision(response.current),
            answers: response.answers.into_iter().map(Answer::try_from).collect::<Result<_>>()?,
        })
    }
}
