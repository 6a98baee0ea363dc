//! What is set aside: whoever may write to the store, or to the folder of key entries, can put anything there under any
//! name. It is told once, by its name, and the round goes on with the rest.

use std::io::ErrorKind;

use super::{Registrar, RegistrarError};
use crate::store::{StoreError, Trouble};

/// The most things that are told apart. Somebody can make names without end; the memory for them has one.
const MOST: usize = 10_000;

/// The name of the object that the trouble is with, where it is with this one and not with the store: another object
/// may be read all the same.
fn object(error: &StoreError) -> Option<&str> {
    match error {
        StoreError::Io { name, source, .. } => {
            let of_object = matches!(
                source.kind(),
                ErrorKind::FileTooLarge
                    | ErrorKind::InvalidInput
                    | ErrorKind::InvalidData
                    | ErrorKind::IsADirectory
                    | ErrorKind::NotADirectory
                    | ErrorKind::PermissionDenied
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::Other
            );
            of_object.then_some(name)
        }
        StoreError::Service { name, trouble: Trouble::Refused | Trouble::Damaged, .. }
        | StoreError::Taken { name, .. }
        | StoreError::ReadBack { name, .. } => Some(name),
        StoreError::Service { .. }
        | StoreError::Source { .. }
        | StoreError::Full(_)
        | StoreError::Pending { .. } => None,
    }
}

/// Whether a put failed because the name is somebody else's: by other bytes, or by what is no object at all.
pub(super) fn is_squatted(error: &RegistrarError) -> bool {
    match error {
        RegistrarError::Store(StoreError::Taken { .. }) => true,
        // A name that a delete marker hides is refused by some stores.
        RegistrarError::Store(StoreError::Service { trouble, .. }) => *trouble == Trouble::Refused,
        RegistrarError::Store(StoreError::Io { source, .. }) => source.kind() == ErrorKind::InvalidInput,
        _ => false,
    }
}

/// Whether the service failed just now while the object was read: it says nothing about the object.
fn failed_now(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if Trouble::met(source).is_some_and(|met| !met.needs_someone()))
}

/// What is wrong with an object, where the trouble is its own.
pub(super) fn of_object(error: &RegistrarError) -> Option<String> {
    match error {
        RegistrarError::Store(error) if object(error).is_some() && !failed_now(error) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

impl Registrar {
    /// Tells of something once. `what` has one text as long as it is the same thing.
    pub(super) fn warn_once(&mut self, about: &str, what: &str) {
        if self.is_new(format!("{about} {what}")) {
            tracing::warn!(about, what, "not registered");
        }
    }

    /// How many different things were set aside since the start.
    pub fn set_aside(&self) -> usize {
        self.warned.len()
    }

    /// Whether this was not told before.
    pub(super) fn is_new(&mut self, thing: String) -> bool {
        self.warned.len() < MOST && self.warned.insert(thing)
    }

    /// The result, or `None` where the trouble is one object's: that is set aside.
    ///
    /// # Errors
    /// All other trouble: with the store, or with this machine.
    pub(super) fn unless_aside<T>(
        &mut self,
        about: &str,
        result: Result<T, RegistrarError>,
    ) -> Result<Option<T>, RegistrarError> {
        let error = match result {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        let RegistrarError::Store(of_store) = &error else { return Err(error) };
        let Some(name) = object(of_store) else { return Err(error) };
        if failed_now(of_store) {
            // One object that never comes must not hold up the others.
            if self.is_new(format!("object {name}, for now")) {
                tracing::warn!(about, %error, "not read now; the rest goes on");
            }
            return Ok(None);
        }
        // By the name alone: what a service says differs from time to time.
        if self.is_new(format!("object {name}")) {
            tracing::warn!(about, %error, "set aside; the rest goes on");
        }
        Ok(None)
    }
}
