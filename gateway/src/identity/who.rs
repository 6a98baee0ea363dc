//! Who calls, as far as the credential says.

use std::sync::Arc;

use schemas::Identifier;
use schemas::record::{Attributed, Caller, Source};

use crate::config::Attributes;
use crate::keys::{Allow, KeyEntry};

/// The authenticated caller.
#[derive(Debug)]
pub(crate) enum Who<'k> {
    /// By a gateway key.
    Key(&'k KeyEntry),
    /// By a token or a certificate.
    Told(Box<Told>),
}

/// What a token or a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// `claim` or `certificate`.
    pub(crate) source: Source,
    /// Who calls.
    pub(crate) consumer: Identifier,
    /// What else is known.
    pub(crate) attributes: Attributes,
    /// The end user, by pseudonym.
    pub(crate) subject: Option<Identifier>,
    /// The first groups.
    pub(crate) groups: Vec<Identifier>,
    /// How many groups, where these are not all.
    pub(crate) group_count: Option<u64>,
    /// The groups that quotas count by, where the record does not hold all.
    pub(crate) counted: Option<Arc<[Identifier]>>,
}

impl Who<'_> {
    /// What the record says of it, without route and caller's own word.
    pub(crate) fn caller(&self) -> Caller {
        match self {
            Self::Key(entry) => of_key(entry),
            Self::Told(told) => told.caller(),
        }
    }

    /// The groups that quotas count by, where the record does not hold all.
    pub(crate) fn counted(&self) -> Option<Arc<[Identifier]>> {
        match self {
            Self::Key(_) => None,
            Self::Told(told) => told.counted.clone(),
        }
    }

    /// What it may use; `None`: anything.
    pub(crate) fn allow(&self) -> Option<Arc<Allow>> {
        match self {
            Self::Key(entry) => entry.allow.clone(),
            Self::Told(_) => None,
        }
    }
}

fn by(source: Source) -> impl Fn(&Option<Identifier>) -> Option<Attributed> {
    move |value| value.clone().map(|value| Attributed { value, source })
}

fn of_key(entry: &KeyEntry) -> Caller {
    let key = by(Source::Key);
    Caller {
        consumer: Some(Attributed { value: entry.consumer.clone(), source: Source::Key }),
        team: key(&entry.team),
        organisation: key(&entry.organisation),
        cost_centre: key(&entry.cost_centre),
        system: key(&entry.system),
        purpose: key(&entry.purpose),
        data_class: key(&entry.data_class),
        key: Some(entry.id.clone()),
        groups: entry.groups.clone(),
        ..Caller::default()
    }
}

impl Told {
    fn caller(&self) -> Caller {
        let told = by(self.source);
        let attributes = &self.attributes;
        Caller {
            consumer: Some(Attributed { value: self.consumer.clone(), source: self.source }),
            team: told(&attributes.team),
            organisation: told(&attributes.organisation),
            cost_centre: told(&attributes.cost_centre),
            system: told(&attributes.system),
            purpose: told(&attributes.purpose),
            data_class: told(&attributes.data_class),
            subject: told(&self.subject),
            groups: self.groups.clone(),
            group_count: self.group_count,
            ..Caller::default()
        }
    }
}
