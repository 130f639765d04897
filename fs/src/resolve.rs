//! What a name leads to, at one revision.
//!
//! The rules: a component is a directory if keys lie below it (its own value is then `@value` in it),
//! else a file if its key has a value. What is stored at a directory's own prefix is its marker, or the
//! file `%` in it. All questions about one name are asked in one view.
//!
//! A [`Standing`] is what the store has; the node table and what is staged come in where a [`Found`] is
//! made of it (`Filesystem::found`).

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{
    Answer as KeyAnswer, DirectoryAnswer, KeyRange, KeyValue, ListAnswer, ListRead, RangeAnswer,
    RangeRead, Read, ReadAnswer, Revision,
};

use crate::attributes::{
    Defaults, Effective, Record, effective_directory, effective_file, is_marker, record_key,
};
use crate::filesystem::{Answer, Filesystem};
use crate::node::Tree;
use crate::path::{DigestName, DirectoryKey, Listed, Name};

/// Names of one page of a listing that a shortened name is looked for in.
const DIGEST_PAGE: usize = 1_000;

/// A file or symlink as the store has it.
#[derive(Clone, Debug)]
pub struct StandingFile {
    /// Its value left out.
    pub kv: KeyValue,
    /// `mod_revision` of the side record, whether it holds or not; none without one.
    pub record: Revision,
    /// It only keeps a directory: not a file but in `@keys/`.
    pub is_marker: bool,
    pub effective: Effective,
}

/// A directory as the store has it.
#[derive(Clone, Debug)]
pub struct StandingDirectory {
    pub directory: DirectoryKey,
    pub answer: DirectoryAnswer,
    /// What is stored at its prefix.
    pub marker: Option<KeyValue>,
    pub effective: Effective,
}

/// What stands at a path.
#[derive(Clone, Debug)]
pub enum Standing {
    File(StandingFile),
    Directory(StandingDirectory),
}

impl Standing {
    #[must_use]
    pub fn effective(&self) -> &Effective {
        match self {
            Self::File(file) => &file.effective,
            Self::Directory(directory) => &directory.effective,
        }
    }

    pub(crate) fn effective_mut(&mut self) -> &mut Effective {
        match self {
            Self::File(file) => &mut file.effective,
            Self::Directory(directory) => &mut directory.effective,
        }
    }
}

/// What is asked about; several subjects can be asked about in one view.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// Whatever a component is.
    Component {
        directory: DirectoryKey,
        component: Bytes,
    },
    /// The file that is the value of a key, also where keys lie below it.
    File(Bytes),
    /// A key, taken for a file even if it is a marker.
    AnyKey(Bytes),
    Directory(DirectoryKey),
}

impl Subject {
    fn questions(&self) -> Vec<Read> {
        match self {
            Self::Component { directory, component } => {
                let mut reads = about_key(&directory.child_key(component));
                reads.extend(about_directory(&directory.child_directory(component)));
                reads
            }
            Self::File(key) | Self::AnyKey(key) => about_key(key),
            Self::Directory(directory) => about_directory(directory),
        }
    }

    fn standing(&self, answers: &mut Answers, defaults: &Defaults) -> Answer<Option<Standing>> {
        match self {
            Self::Component { directory, component } => {
                let file = key_in(&directory.child_key(component), answers, defaults)?;
                let child = directory.child_directory(component);
                let directory = directory_in(&child, answers, defaults)?;
                let is_there = directory.answer.names > 0;
                let file = file.filter(|file| !file.is_marker).map(Standing::File);
                Ok(if is_there { Some(Standing::Directory(directory)) } else { file })
            }
            Self::File(key) => Ok(key_in(key, answers, defaults)?
                .filter(|file| !file.is_marker)
                .map(Standing::File)),
            Self::AnyKey(key) => Ok(key_in(key, answers, defaults)?.map(Standing::File)),
            Self::Directory(directory) => {
                directory_in(directory, answers, defaults).map(|own| Some(Standing::Directory(own)))
            }
        }
    }
}

fn about_key(key: &Bytes) -> Vec<Read> {
    if key.is_empty() {
        return Vec::new();
    }
    let keys_only = RangeRead { keys_only: true, ..RangeRead::new(KeyRange::Key(key.clone())) };
    vec![Read::Range(keys_only), Read::key(record_key(key))]
}

fn about_directory(directory: &DirectoryKey) -> Vec<Read> {
    let mut reads = vec![Read::Directory(directory.as_bytes().clone())];
    reads.extend(about_key(directory.as_bytes()));
    reads
}

fn key_in(key: &Bytes, answers: &mut Answers, defaults: &Defaults) -> Answer<Option<StandingFile>> {
    if key.is_empty() {
        return Ok(None);
    }
    let (kv, record) = (answers.key()?, answers.key()?);
    Ok(kv.map(|kv| standing_file(kv, record.as_ref(), defaults)))
}

/// What a key and its record make.
pub(crate) fn standing_file(
    kv: KeyValue,
    record: Option<&KeyValue>,
    defaults: &Defaults,
) -> StandingFile {
    let revision = record.map_or(Revision::NONE, |record| record.mod_revision);
    let record = record.and_then(read_record);
    let is_marker = kv.key.ends_with(b"/") && is_marker(&kv, record.as_ref());
    let effective = effective_file(&kv, record.as_ref(), defaults);
    StandingFile { kv, record: revision, is_marker, effective }
}

fn directory_in(
    directory: &DirectoryKey,
    answers: &mut Answers,
    defaults: &Defaults,
) -> Answer<StandingDirectory> {
    let answer = answers.directory()?;
    let (marker, record) = match directory.marker() {
        Some(_) => (answers.key()?, answers.key()?),
        None => (None, None),
    };
    Ok(standing_directory(directory.clone(), answer, marker, record.as_ref(), defaults))
}

pub(crate) fn standing_directory(
    directory: DirectoryKey,
    answer: DirectoryAnswer,
    marker: Option<KeyValue>,
    record: Option<&KeyValue>,
    defaults: &Defaults,
) -> StandingDirectory {
    let record = record.and_then(read_record);
    let effective = effective_directory(&answer, marker.as_ref(), record.as_ref(), defaults);
    StandingDirectory { directory, answer, marker, effective }
}

/// A record that cannot be read is as good as none; whoever wrote it should know.
pub(crate) fn read_record(kv: &KeyValue) -> Option<Record> {
    Record::read(kv)
        .inspect_err(|error| tracing::warn!(key = %kv.key.escape_ascii(), %error, "side record"))
        .ok()
}

/// The answers of one read, taken in the order of its questions.
pub(crate) struct Answers(std::vec::IntoIter<KeyAnswer>);

impl Answers {
    pub(crate) fn new(answer: ReadAnswer) -> Self {
        Self(answer.answers.into_iter())
    }

    pub(crate) fn key(&mut self) -> Answer<Option<KeyValue>> {
        self.range().map(|range| range.kvs.into_iter().next())
    }

    pub(crate) fn range(&mut self) -> Answer<RangeAnswer> {
        match self.0.next() {
            Some(KeyAnswer::Range(range)) => Ok(range),
            other => Err(answer_of_another_kind(other.as_ref())),
        }
    }

    pub(crate) fn list(&mut self) -> Answer<ListAnswer> {
        match self.0.next() {
            Some(KeyAnswer::List(list)) => Ok(list),
            other => Err(answer_of_another_kind(other.as_ref())),
        }
    }

    fn directory(&mut self) -> Answer<DirectoryAnswer> {
        match self.0.next() {
            Some(KeyAnswer::Directory(directory)) => Ok(directory),
            other => Err(answer_of_another_kind(other.as_ref())),
        }
    }
}

fn answer_of_another_kind(answer: Option<&KeyAnswer>) -> Errno {
    tracing::error!(?answer, "the key space does not answer what was asked");
    Errno::EIO
}

/// What stands somewhere, and the revision of the view.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    pub revision: Revision,
    pub standing: T,
}

impl Filesystem {
    /// What `subject` is in `tree`. In the past, the attributes are those that may be shown now.
    pub(crate) async fn stands(
        &self,
        tree: Tree,
        subject: &Subject,
    ) -> Answer<Seen<Option<Standing>>> {
        let mut seen = self.stands_at(tree.revision(), subject).await?;
        if let (Tree::Past(_), Some(standing), false) =
            (tree, &mut seen.standing, self.options.history_as_is)
        {
            let present = self.stands_at(Revision::NONE, subject).await?.standing;
            let present = present.filter(|present| match present {
                Standing::Directory(directory) => self.is_there(directory),
                Standing::File(_) => true,
            });
            let effective = standing.effective_mut();
            *effective = effective.clone().as_past(present.as_ref().map(Standing::effective));
        }
        Ok(seen)
    }

    /// [`Self::stands`] with the attributes of then.
    pub(crate) async fn stands_at(
        &self,
        revision: Revision,
        subject: &Subject,
    ) -> Answer<Seen<Option<Standing>>> {
        let answer = self.ask(revision, subject.questions()).await?;
        let revision = answer.revision;
        let mut answers = Answers::new(answer);
        let standing = subject.standing(&mut answers, &self.options.defaults())?;
        Ok(Seen { revision, standing })
    }

    /// Whether a directory exists: something lies in it, or it is the root of the mount.
    pub(crate) fn is_there(&self, directory: &StandingDirectory) -> bool {
        directory.answer.names > 0 || directory.directory == self.options.root
    }

    /// What an ordinary name in a directory leads to.
    pub(crate) async fn stands_under_name(
        &self,
        tree: Tree,
        directory: &DirectoryKey,
        name: Name,
    ) -> Answer<Seen<Option<Standing>>> {
        let nothing = Seen { revision: Revision::NONE, standing: None };
        let subject = match name {
            Name::Component(component) => {
                Subject::Component { directory: directory.clone(), component }
            }
            // The value of the mount's root lies outside of it.
            Name::Value if *directory == self.options.root => return Ok(nothing),
            Name::Value => match directory.value_key() {
                Some(key) => Subject::File(key),
                None => return Ok(nothing),
            },
            Name::Digest(digest) => {
                match self.component_of_digest(tree.revision(), directory, &digest).await? {
                    Some(component) => {
                        Subject::Component { directory: directory.clone(), component }
                    }
                    None => return Ok(nothing),
                }
            }
            Name::Reserved | Name::Hidden(_) => return Ok(nothing),
        };
        self.stands(tree, &subject).await
    }

    /// Looks for the component of a shortened name. What has one is longer than its stem.
    pub(crate) async fn component_of_digest(
        &self,
        revision: Revision,
        directory: &DirectoryKey,
        digest: &DigestName,
    ) -> Answer<Option<Bytes>> {
        let mut after = digest.stem().clone();
        loop {
            let list = Read::List(ListRead {
                directory: directory.as_bytes().clone(),
                after,
                limit: DIGEST_PAGE,
                with_values: false,
            });
            let page = Answers::new(self.ask(revision, vec![list]).await?).list()?;
            for entry in &page.entries {
                let component = Listed::new(&entry.name).component();
                if digest.is_of_component(component) {
                    return Ok(Some(Bytes::copy_from_slice(component)));
                }
            }
            match page.entries.last() {
                Some(last) if page.more && last.name.starts_with(digest.stem()) => {
                    after = last.name.clone();
                }
                _ => return Ok(None),
            }
        }
    }
}
