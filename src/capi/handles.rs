//! Every object behind a handle, in one table. A handle carries a generation, so that one whose object
//! is gone is recognised, even when another object has taken its place.

use std::time::Instant;

use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use super::Status;
use super::boundary::Failure;
use super::worker::{Job, Worker};
use crate::motion::Motion;
use crate::sync::{Arc, Mutex, lock};

/// What a handle stands for.
#[derive(Clone)]
pub enum Object {
    Engine(Arc<Worker>),
    Motion(Arc<Motion>),
    Job(Arc<Job>),
}

/// A kind of object that has handles.
pub trait Kind: Sized {
    /// Its name in messages.
    const NAME: &'static str;
    fn wrap(object: Arc<Self>) -> Object;
    fn unwrap(object: Object) -> Option<Arc<Self>>;
}

macro_rules! kind {
    ($type:ty, $variant:ident, $name:literal) => {
        impl Kind for $type {
            const NAME: &'static str = $name;

            fn wrap(object: Arc<Self>) -> Object {
                Object::$variant(object)
            }

            fn unwrap(object: Object) -> Option<Arc<Self>> {
                if let Object::$variant(object) = object { Some(object) } else { None }
            }
        }
    };
}

kind!(Worker, Engine, "engine");
kind!(Motion, Motion, "motion");
kind!(Job, Job, "job");

/// The objects of a process.
#[derive(Default)]
pub struct Table {
    objects: Mutex<SlotMap<DefaultKey, Object>>,
}

impl Table {
    /// Keeps an object and gives its handle, which is never 0.
    pub fn insert<T: Kind>(&self, object: Arc<T>) -> u64 {
        lock(&self.objects).insert(T::wrap(object)).data().as_ffi()
    }

    /// The object behind a handle.
    pub fn get<T: Kind>(&self, handle: u64) -> Result<Arc<T>, Failure> {
        let object = lock(&self.objects).get(key(handle)).cloned();
        object.and_then(T::unwrap).ok_or_else(|| stale::<T>(handle))
    }

    /// Takes the object behind a handle out of the table.
    pub fn remove<T: Kind>(&self, handle: u64) -> Result<Arc<T>, Failure> {
        let mut objects = lock(&self.objects);
        // A handle of another kind must not remove its object.
        objects.get(key(handle)).cloned().and_then(T::unwrap).ok_or_else(|| stale::<T>(handle))?;
        let object = objects.remove(key(handle));
        drop(objects);
        object.and_then(T::unwrap).ok_or_else(|| stale::<T>(handle))
    }

    /// Takes everything out of the table, ends all jobs and waits for the threads of all engines. Whether all have
    /// ended by the deadline.
    pub fn destroy_all(&self, deadline: Instant) -> bool {
        let objects: Vec<Object> = lock(&self.objects).drain().map(|(_, object)| object).collect();
        for object in &objects {
            match object {
                Object::Engine(engine) => engine.close(),
                Object::Job(job) => job.cancel(),
                Object::Motion(_) => {}
            }
        }
        let mut ended = true;
        for object in &objects {
            if let Object::Engine(engine) = object {
                ended &= engine.stop(deadline);
            }
        }
        ended
    }

    /// The same, without another word to the host.
    pub fn silence_and_destroy_all(&self, deadline: Instant) -> bool {
        for object in lock(&self.objects).values() {
            if let Object::Engine(engine) = object {
                engine.silence();
            }
        }
        self.destroy_all(deadline)
    }
}

/// The table's key for a handle; a key to nothing for a number that is no handle, which would otherwise be rounded to
/// one.
fn key(handle: u64) -> DefaultKey {
    let key = KeyData::from_ffi(handle);
    if key.as_ffi() == handle { key.into() } else { DefaultKey::null() }
}

fn stale<T: Kind>(handle: u64) -> Failure {
    let why = if handle == 0 { "it was never made" } else { "it may have been destroyed" };
    Failure::new(Status::InvalidHandle, format!("no {} has the handle {handle:#x}: {why}", T::NAME))
}
