//! The adapter as an object: what it holds, and what it asks of the kernel.

use std::sync::Arc;
use std::time::Instant;

use fuser::{INodeNo, InitFlags, KernelConfig};
use tokio::runtime::Handle;

use super::serve::Server;
use crate::filesystem::{Answer, Filesystem};
use crate::ops::OperationKind;

/// The largest WRITE that is asked for: what the kernel's `max_pages` allows.
const WRITE_BYTES_MAX: u32 = 1024 * 1024;

/// Requests that the kernel may have under way in the background (read-ahead, RELEASE).
const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel, where it has it.
const CAPABILITIES: [InitFlags; 8] = [
    // O_TRUNC comes with OPEN, so that emptying and writing anew are one change.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // Names come with their attributes: no LOOKUP for each.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Else each WRITE would ask for security.capability.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    // Files without pages of the kernel's own (of a linear mount) can be mapped, too.
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    // Locks are asked for here, not kept by this kernel for itself.
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
];

/// The adapter between fuser's workers and a [`Filesystem`].
#[derive(Debug)]
pub struct Adapter {
    pub(super) filesystem: Arc<Filesystem>,
    server: Server,
}

impl Adapter {
    #[must_use]
    pub fn new(filesystem: Arc<Filesystem>, runtime: Handle) -> Self {
        Self { filesystem, server: Server::new(runtime) }
    }

    /// The tree that a node belongs to.
    pub(super) fn tree_of(&self, ino: INodeNo) -> Arc<Filesystem> {
        self.filesystem.tree_of(ino.0)
    }

    /// Where requests about a node are answered, each of them counted.
    pub(super) fn at(&self, operation: OperationKind, ino: INodeNo) -> At<'_> {
        At { counted: Some((operation, Instant::now())), ..self.uncounted(ino) }
    }

    /// [`Self::at`], for what no program asked.
    pub(super) fn uncounted(&self, ino: INodeNo) -> At<'_> {
        At { server: &self.server, filesystem: self.tree_of(ino), ino: ino.0, counted: None }
    }
}

/// The adapter in front of the tree that a request is about.
pub(super) struct At<'a> {
    server: &'a Server,
    filesystem: Arc<Filesystem>,
    ino: u64,
    /// As what, and when it came.
    counted: Option<(OperationKind, Instant)>,
}

impl At<'_> {
    pub(super) fn serve<T, O>(
        self,
        operation: impl FnOnce(Arc<Filesystem>) -> O,
        send: impl FnOnce(&Filesystem, Answer<T>) + Send + 'static,
    ) where
        O: Future<Output = Answer<T>> + Send + 'static,
    {
        let Self { server, filesystem, ino, counted } = self;
        server.serve(operation(Arc::clone(&filesystem)), move |answer| {
            if let Some((operation, since)) = counted {
                filesystem.count(operation, ino, since.elapsed(), answer.is_err());
            }
            send(&filesystem, answer);
        });
    }
}

pub(super) fn configure(config: &mut KernelConfig) {
    for capability in CAPABILITIES {
        if config.add_capabilities(capability).is_err() {
            tracing::info!(?capability, "this kernel does not have it");
        }
    }
    // A value that is refused comes back as the nearest that is possible.
    if let Err(nearest) = config.set_max_write(WRITE_BYTES_MAX) {
        config.set_max_write(nearest).ok();
    }
    if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
        config.set_max_background(nearest).ok();
    }
}
