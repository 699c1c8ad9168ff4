//! A thread for what asks SyncValue. A bid waits there for several tasks, one after the other; on the threads of the listeners each of them
//! would wait behind all the requests that are still to be looked at, most of which are turned away where there are too many.

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime, RuntimeFlavor};

/// A runtime with one thread; none on a runtime that has one thread itself, as that of a test whose time stands still has.
#[derive(Debug)]
pub(crate) struct Aside(Option<Runtime>);

impl Aside {
    pub(crate) fn new() -> std::io::Result<Self> {
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => Ok(Self(None)),
            _ => Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("flow-aside").build().map(Some).map(Self),
        }
    }

    /// Where it runs.
    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }

    /// While this lives, what is spawned runs there.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background); // what is left there is a connection
    }
}
