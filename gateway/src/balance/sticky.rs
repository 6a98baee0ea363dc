//! Which target a conversation is at: the newest of them, in a bounded room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dialects::ConversationKey;

/// How many conversations one generation holds; two are kept.
const GENERATION: usize = 65_536;

/// Conversations and the names of their targets. A generation that is full becomes the old one, and the one before goes:
/// what is asked for moves to the new one.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    new: HashMap<ConversationKey, Arc<str>>,
    old: HashMap<ConversationKey, Arc<str>>,
}

impl Places {
    pub(super) fn of(&self, conversation: &ConversationKey) -> Option<Arc<str>> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.new.get(conversation).or_else(|| generations.old.get(conversation)).cloned()
    }

    pub(super) fn put(&self, conversation: ConversationKey, target: &Arc<str>) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.new.len() >= GENERATION && !generations.new.contains_key(&conversation) {
            generations.old = std::mem::take(&mut generations.new);
        }
        generations.new.insert(conversation, Arc::clone(target));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.new.len() + generations.old.len()
    }
}
