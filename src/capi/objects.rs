//! Every object behind a handle, in one table for the process. A handle carries a generation, so that one whose object
//! is gone is recognised, even when another object has taken its place.

use std::sync::{Arc, LazyLock, Mutex};

use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use super::worker::{Job, Worker};
use super::{Failure, Status};
use crate::motion::Motion;
use crate::session::lock;

/// What a handle stands for.
#[derive(Clone)]
pub enum Object {
    Engine(Arc<Worker>),
    Motion(Arc<Motion>),
    Job(Arc<Job>),
}

static OBJECTS: LazyLock<Mutex<SlotMap<DefaultKey, Object>>> = LazyLock::new(Mutex::default);

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

/// Keeps an object and gives its handle, which is never 0.
pub fn insert<T: Kind>(object: Arc<T>) -> u64 {
    lock(&OBJECTS).insert(T::wrap(object)).data().as_ffi()
}

/// The object behind a handle.
pub fn get<T: Kind>(handle: u64) -> Result<Arc<T>, Failure> {
    let object = lock(&OBJECTS).get(key(handle)).cloned();
    object.and_then(T::unwrap).ok_or_else(|| stale::<T>(handle))
}

/// Takes the object behind a handle out of the table.
pub fn remove<T: Kind>(handle: u64) -> Result<Arc<T>, Failure> {
    let mut objects = lock(&OBJECTS);
    // A handle of another kind must not remove its object.
    objects.get(key(handle)).cloned().and_then(T::unwrap).ok_or_else(|| stale::<T>(handle))?;
    let object = objects.remove(key(handle));
    drop(objects);
    object.and_then(T::unwrap).ok_or_else(|| stale::<T>(handle))
}

/// Takes everything out of the table.
pub fn clear() -> Vec<Object> {
    lock(&OBJECTS).drain().map(|(_, object)| object).collect()
}

fn key(handle: u64) -> DefaultKey {
    KeyData::from_ffi(handle).into()
}

fn stale<T: Kind>(handle: u64) -> Failure {
    let why = if handle == 0 { "it was never made" } else { "it may have been destroyed" };
    Failure::new(Status::InvalidHandle, format!("no {} has the handle {handle:#x}: {why}", T::NAME))
}
