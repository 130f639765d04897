//! New names: files, directories, symlinks.
//!
//! A file that CREATE makes is *unborn*: this mount shows it, the store learns of it with its first
//! commit, content and attributes together. Directories and symlinks are in the store when the answer
//! is given.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::Bytes;
use fuser::{Errno, FileType};
use revfs_api::keyspace::{Answer as KeyAnswer, Error, Op, Read, Revision, Txn};
use revfs_api::reservations::ReservedName;

use crate::attributes::{Attributes, Kind, Record, in_force_of_directory, record_key};
use crate::budget::{Charge, OverBudget};
use crate::commit::transaction::{Site, Surroundings};
use crate::commit::{key_value, now};
use crate::errno::{errno, name_errno};
use crate::filesystem::{Answer, Caller, Filesystem, Found};
use crate::node::{Node, Place, Tree};
use crate::note::Operation;
use crate::ops::Opened;
use crate::path::{
    CREATED_KEY_BYTES_MAX, DirectoryKey, Name, check_key, decode_name, in_store_key,
    reservation_key,
};
use crate::reservation::{Reservation, announce, reserve};
use crate::resolve::Subject;
use crate::staged::{Creation, Staged};

/// Attempts while others keep changing the directory's marker or value.
const ATTEMPTS_MAX: usize = 10;

const SET_GROUP: u16 = 0o2000;

/// A free name in a live directory, and what holds around it.
pub(crate) struct Room {
    directory: DirectoryKey,
    component: Bytes,
    key: Bytes,
    parent: Attributes,
    creation: Creation,
    /// Another mount has promised the name to a file of its own.
    is_reserved: bool,
    /// Mounts reserve in the store.
    reserves_in_store: bool,
}

/// What stands at a name where something new is to be made.
enum Spot {
    Free(Box<Room>),
    /// A file.
    Taken,
}

impl Filesystem {
    /// Creates and opens a file.
    ///
    /// # Errors
    /// ESTALE if a file took the name since the kernel looked it up, EEXIST with O_EXCL;
    /// EEXIST, EISDIR, ENOTDIR, ENOENT for what is in the way; EPERM for names that are the file
    /// system's own; ENAMETOOLONG, EROFS, ENOSPC before anything is kept.
    pub async fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Answer<(Found, Opened)> {
        let is_exclusive = flags & libc::O_EXCL != 0;
        let stays_here = new_component(name).is_ok_and(|own| self.options.local.has(&own));
        // Before the look whether the name is free: who is here first is the one to find it free.
        let here = match is_exclusive && !stays_here {
            true => Some(self.take_name_here(parent, name)?),
            false => None,
        };
        let room = match self.spot(parent, name).await {
            Ok(Spot::Free(room)) => room,
            // A directory.
            Err(Errno::EEXIST) if !is_exclusive => return Err(Errno::EISDIR),
            Err(errno) => return Err(errno),
            Ok(Spot::Taken) if is_exclusive => return Err(Errno::EEXIST),
            // Whether the caller may open it only the kernel can check: it looks the name up again.
            Ok(Spot::Taken) => return Err(Errno::ESTALE),
        };
        let attributes = self.attributes_of_new(caller, &room, Kind::File, mode);
        let creation =
            Creation { is_exclusive, may_repeat: flags & libc::O_TRUNC != 0, ..room.creation };
        let reservation = match here {
            Some(here) => Some(self.reserve(caller, &room, here?).await?),
            None => None,
        };
        let kind = FileType::RegularFile;
        let node = self.unborn_file(&room, (attributes, kind), creation, reservation)?;
        let opened = self.opened(Arc::clone(&node), caller, flags | libc::O_WRONLY);
        Ok((self.found_unborn(node)?, opened))
    }

    /// Makes the node of a file that the store does not have yet.
    pub(crate) fn unborn_file(
        &self,
        room: &Room,
        (attributes, kind): (Attributes, FileType),
        mut creation: Creation,
        reservation: Option<Reservation>,
    ) -> Answer<Arc<Node>> {
        if self.options.local.has(&room.component) {
            self.check_room_here()?;
        }
        creation.reserved = reservation.as_ref().map(Reservation::lease).unwrap_or_default();
        let charge = Charge::new(&self.writing.budget, 0);
        let charge = charge.map_err(|OverBudget| Errno::ENOSPC)?;
        let mut unborn = self.unborn.lock();
        let place = (room.directory.clone(), room.component.clone());
        if unborn.contains_key(&place) {
            return Err(if creation.is_exclusive { Errno::EEXIST } else { Errno::ESTALE });
        }
        let node = self.node_of_unborn(&room.key, kind);
        let mut state = node.file.lock();
        let staged = Staged::new_file(attributes, creation, charge, now());
        let base = (Revision::NONE, Revision::NONE);
        state.stage(Staged { replaces: self.replaced(base), ..staged });
        state.reservation = reservation;
        drop(state);
        unborn.insert(place, Arc::clone(&node));
        Ok(node)
    }

    /// Takes a name in the table that the mounts of this process share; inside, whether it is free.
    fn take_name_here(&self, parent: u64, name: &OsStr) -> Answer<Answer<Option<ReservedName>>> {
        let key = self.live_directory(parent)?.child_key(&new_component(name)?);
        Ok(self.take_here(&key))
    }

    /// Keeps the name of a file that is to be created exclusively until its first commit.
    async fn reserve(
        &self,
        caller: Caller,
        room: &Room,
        here: Option<ReservedName>,
    ) -> Answer<Reservation> {
        if here.is_some() && !room.reserves_in_store {
            return if room.is_reserved { Err(Errno::EEXIST) } else { Ok(Reservation::here(here)) };
        }
        for is_last in [false, true] {
            let lease = match self.lease.id().await {
                Ok(lease) => lease,
                // The first commit finds out whether the name was taken.
                Err(Error::Unsupported(_)) => break,
                Err(error) => return Err(errno(&error)),
            };
            let (ops, note) =
                (vec![reserve(&room.key, lease)], Operation::Create(room.key.clone()));
            let made = self.make_unheld(caller, room, ops, note).await;
            if made == Err(Errno::EEXIST) {
                return Err(Errno::EEXIST);
            }
            let keys = Arc::clone(&self.keys);
            let reservation = Reservation::in_store(keys, room.key.clone(), lease);
            let Err(errno) = made else { return Ok(reservation.with(here)) };
            // It may have been made all the same.
            drop(reservation);
            if is_last || !self.lease.is_lost(lease).await {
                return Err(errno);
            }
        }
        Ok(Reservation::here(here))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Self::create`] with O_EXCL; EPERM where no marker may be written.
    pub async fn mkdir(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Answer<Found> {
        if self.holds_transactions(parent) {
            return self.begin_transaction(caller, name).await;
        }
        let Spot::Free(room) = self.spot(parent, name).await? else { return Err(Errno::EEXIST) };
        if !self.options.writes_markers {
            return Err(Errno::EPERM);
        }
        let mut attributes = self.attributes_of_new(caller, &room, Kind::Directory, mode);
        attributes.mode |= room.parent.mode & SET_GROUP;
        let made = room.directory.child_directory(&room.component);
        let marker = made.as_bytes().clone();
        let mut ops = vec![Op::put(marker.clone(), Bytes::new())];
        if !attributes.is_default(&self.options.defaults()) {
            ops.push(Op::put(record_key(&marker), attributes.encode()));
        }
        self.make(caller, &room, ops, Operation::MakeDirectory(marker)).await?;
        self.found_component(&room.directory, &room.component).await
    }

    /// Makes a symlink; its value is the target.
    ///
    /// # Errors
    /// As [`Self::create`] with O_EXCL; ENAMETOOLONG for a target of 4,096 bytes or more; EPERM where no
    /// side record may be written.
    pub async fn symlink(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        target: &OsStr,
    ) -> Answer<Found> {
        if target.len() >= usize::try_from(libc::PATH_MAX).unwrap_or(4096) {
            return Err(Errno::ENAMETOOLONG);
        }
        let Spot::Free(room) = self.spot(parent, name).await? else { return Err(Errno::EEXIST) };
        if !self.options.writes_attributes {
            return Err(Errno::EPERM);
        }
        let attributes = self.attributes_of_new(caller, &room, Kind::Symlink, 0o777);
        if self.options.local.has(&room.component) {
            return self.make_here(&room, attributes, FileType::Symlink, target.as_bytes());
        }
        let value = Bytes::copy_from_slice(target.as_bytes());
        let ops = vec![
            Op::put(room.key.clone(), value),
            Op::put(record_key(&room.key), attributes.encode()),
        ];
        self.make(caller, &room, ops, Operation::Symlink(room.key.clone())).await?;
        self.found_component(&room.directory, &room.component).await
    }

    /// Makes an empty file without opening it, or something that the kernel alone opens: a fifo, a socket, a device.
    /// Those exist by their record.
    ///
    /// # Errors
    /// EPERM where records are not written and it is no regular file, EINVAL for what is none of these; else as
    /// [`Self::create`] with O_EXCL.
    pub async fn mknod(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        (mode, rdev): (u32, u32),
    ) -> Answer<Found> {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => Kind::File,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            libc::S_IFCHR => Kind::CharDevice { rdev },
            libc::S_IFBLK => Kind::BlockDevice { rdev },
            _ => return Err(Errno::EINVAL),
        };
        let Spot::Free(room) = self.spot(parent, name).await? else { return Err(Errno::EEXIST) };
        if kind != Kind::File && !self.options.writes_attributes {
            return Err(Errno::EPERM);
        }
        let attributes = self.attributes_of_new(caller, &room, kind, mode);
        if kind == Kind::File && self.options.local.has(&room.component) {
            return self.make_here(&room, attributes, FileType::RegularFile, &[]);
        }
        let mut ops = vec![Op::put(room.key.clone(), Bytes::new())];
        if !attributes.is_default(&self.options.defaults()) {
            ops.push(Op::put(record_key(&room.key), attributes.encode()));
        }
        let key = room.key.clone();
        let operation =
            if kind == Kind::File { Operation::Create(key) } else { Operation::Symlink(key) };
        self.make(caller, &room, ops, operation).await?;
        self.found_component(&room.directory, &room.component).await
    }

    /// Puts new keys where nothing may be in the way, as one revision.
    async fn make(
        &self,
        caller: Caller,
        room: &Room,
        ops: Vec<Op>,
        operation: Operation,
    ) -> Answer<()> {
        let here = self.take_here(&room.key)?;
        let made = self.make_unheld(caller, room, ops, operation).await;
        drop(here);
        made
    }

    /// [`Self::make`], by a caller that holds the name where the mounts of this process share it.
    async fn make_unheld(
        &self,
        caller: Caller,
        room: &Room,
        mut ops: Vec<Op>,
        operation: Operation,
    ) -> Answer<()> {
        if room.is_reserved {
            return Err(Errno::EEXIST);
        }
        if !room.reserves_in_store && self.shared_reservations().is_none() {
            ops.push(announce());
        }
        let defaults = self.options.defaults();
        let site = Site { key: &room.key, root: &self.options.root, defaults: &defaults };
        let mut creation = Creation { is_exclusive: true, ..room.creation };
        for _ in 0..ATTEMPTS_MAX {
            let txn = Txn {
                compares: site.creation_compares(creation),
                success: ops.clone(),
                failure: site.surroundings(),
            };
            let proposed = self.propose(caller.uid, vec![operation.clone()], txn).await;
            let answer = proposed.map_err(|error| errno(&error))?;
            if answer.succeeded {
                self.nodes.detach(&room.key);
                return Ok(());
            }
            let around = Surroundings::new(&site, &answer.answers);
            if let Some(errno) = around.creation_errno() {
                return Err(errno);
            }
            creation = around.creation(creation);
        }
        Err(Errno::EAGAIN)
    }

    /// What a name leads to that was just made or found.
    async fn found_component(&self, directory: &DirectoryKey, component: &Bytes) -> Answer<Found> {
        let place = (directory.clone(), component.clone());
        let unborn = self.unborn.lock().get(&place).cloned();
        if let Some(node) = unborn {
            return self.found_unborn(node);
        }
        let (directory, component) = place;
        let subject = Subject::Component { directory, component };
        let seen = self.stands(Tree::Live, &subject).await?;
        let standing = seen.standing.ok_or(Errno::ENOENT)?;
        Ok(self.found(Tree::Live, &standing, seen.revision))
    }

    /// Looks at the place of a new name, in this mount and in the store.
    async fn spot(&self, parent: u64, name: &OsStr) -> Answer<Spot> {
        let directory = self.live_directory(parent)?;
        let component = new_component(name)?;
        let key = directory.child_key(&component);
        check_key(&key, CREATED_KEY_BYTES_MAX).map_err(|error| name_errno(&error))?;
        self.check_writable()?;
        if self.unborn.lock().contains_key(&(directory.clone(), component.clone())) {
            return Ok(Spot::Taken);
        }
        let marker = directory.as_bytes().clone();
        let mut reads = vec![
            Read::key(key.clone()),
            Read::Directory(directory.child_directory(&component).as_bytes().clone()),
            Read::Directory(marker.clone()),
            Read::key(marker.clone()),
            Read::key(record_key(&marker)),
        ];
        reads.extend([Read::key(reservation_key(&key)), Read::key(in_store_key())]);
        reads.extend(directory.value_key().map(Read::key));
        let answer = self.ask(Revision::NONE, reads).await?;
        let child = match answer.answers.get(1) {
            Some(KeyAnswer::Directory(child)) => *child,
            _ => return Err(Errno::EIO),
        };
        let own = match answer.answers.get(2) {
            Some(KeyAnswer::Directory(own)) => *own,
            _ => return Err(Errno::EIO),
        };
        if own.names == 0 && directory != self.options.root {
            let is_file = key_value(&answer, 7).is_some();
            return Err(if is_file { Errno::ENOTDIR } else { Errno::ENOENT });
        }
        if child.names > 0 {
            return Err(Errno::EEXIST);
        }
        if key_value(&answer, 0).is_some() {
            return Ok(Spot::Taken);
        }
        let marker_kv = key_value(&answer, 3);
        let record = key_value(&answer, 4).and_then(|kv| Record::read(kv).ok());
        let defaults = self.options.defaults();
        let parent = in_force_of_directory(&own, marker_kv, record.as_ref(), &defaults);
        let creation = Creation {
            parent_marker: marker_kv.is_some(),
            parent_value: key_value(&answer, 7).is_some(),
            ..Creation::default()
        };
        let (is_reserved, reserves_in_store) =
            (key_value(&answer, 5).is_some(), key_value(&answer, 6).is_some());
        let room =
            Room { directory, component, key, parent, creation, is_reserved, reserves_in_store };
        Ok(Spot::Free(Box::new(room)))
    }

    /// Owner: the caller; group: the directory's, if it says so.
    fn attributes_of_new(&self, caller: Caller, room: &Room, kind: Kind, mode: u32) -> Attributes {
        let defaults = self.options.defaults();
        match kind {
            Kind::File if !self.options.writes_attributes => {
                return Attributes::plain_file(&defaults);
            }
            Kind::Directory if !self.options.writes_attributes => {
                return Attributes::plain_directory(&defaults);
            }
            _ => {}
        }
        let mode = u16::try_from(mode & 0o7777).expect("12 bits fit in 16");
        let mut attributes = Attributes::new(kind, mode);
        attributes.uid = (caller.uid != defaults.uid).then_some(caller.uid);
        attributes.gid = if room.parent.mode & SET_GROUP != 0 {
            room.parent.gid
        } else {
            (caller.gid != defaults.gid).then_some(caller.gid)
        };
        attributes
    }

    /// The live directory that is node `ino`.
    ///
    /// # Errors
    /// EROFS for one of the past and the hidden ones; ENOTDIR; ESTALE for an unknown node.
    pub(crate) fn live_directory(&self, ino: u64) -> Answer<DirectoryKey> {
        match self.nodes.get(ino).ok_or(Errno::ESTALE)?.place() {
            Place::Directory { tree: Tree::Live, directory } => Ok(directory),
            Place::Directory { tree: Tree::Past(_), .. } | Place::Hidden(_) => Err(Errno::EROFS),
            Place::File { .. } | Place::PastFile { .. } | Place::Detached { .. } => {
                Err(Errno::ENOTDIR)
            }
        }
    }
}

/// The component of a name that is to be given to something new.
pub(crate) fn new_component(name: &OsStr) -> Answer<Bytes> {
    match decode_name(name).map_err(|error| name_errno(&error))? {
        // The empty component is the directory's marker: only a client of the key space gives it a
        // content of its own.
        Name::Component(component) if component.is_empty() => Err(Errno::EPERM),
        Name::Component(component) => Ok(component),
        Name::Value | Name::Hidden(_) | Name::Reserved => Err(Errno::EPERM),
        // Stands for a longer name that nobody but its creator knows.
        Name::Digest(_) => Err(Errno::EINVAL),
    }
}
