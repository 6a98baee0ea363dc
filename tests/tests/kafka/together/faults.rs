//! What goes wrong around the parts, one after the other.

use std::time::Duration;

use tests::Dice;
use tests::services::{Fault, Network, Wire};

use super::fleet::{Fleet, held};
use super::topics;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The broker is killed, and comes back.
    BrokerDown,
    /// Topics are deleted with all that is in them, and made anew.
    TopicsAnew,
    /// A gateway that commits to the brokers is lost with its disk.
    DiskLost,
    /// How far the archivers have read is forgotten.
    OffsetsReset,
    /// The store is killed, and comes back.
    StoreDown,
    /// The store answers 503.
    StoreRefuses,
    /// The store does what it is asked, and answers after everybody has gone.
    StoreAnswersLate,
    /// The store does what it is asked, and the connection is cut before it answers.
    StoreCutAfterSuccess,
    /// No way between a gateway and the broker.
    GatewayBroker,
    /// No way between an archiver and the broker.
    ArchiverBroker,
    /// No way between an archiver and the store.
    ArchiverStore,
    /// No way between the registrar and the store.
    RegistrarStore,
    /// No way between a gateway and its provider.
    GatewayProvider,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::BrokerDown,
        Self::TopicsAnew,
        Self::DiskLost,
        Self::OffsetsReset,
        Self::StoreDown,
        Self::StoreRefuses,
        Self::StoreAnswersLate,
        Self::StoreCutAfterSuccess,
        Self::GatewayBroker,
        Self::ArchiverBroker,
        Self::ArchiverStore,
        Self::RegistrarStore,
        Self::GatewayProvider,
    ];

    /// How long it lasts.
    fn lasts(self) -> Duration {
        let (short, long) = match self {
            Self::BrokerDown => (8, 60),
            Self::DiskLost => (6, 12),
            Self::StoreDown => (4, 30),
            Self::StoreAnswersLate => (5, 15),
            _ => (2, 12),
        };
        Duration::from_secs(if tests::long_round() { long } else { short })
    }

    /// Lets it happen, and mends it; gives its name with what was left to chance.
    pub(crate) fn strike(self, fleet: &Fleet, dice: &mut Dice) -> String {
        let links = &fleet.links;
        let how = match self {
            Self::BrokerDown => {
                held(&fleet.kafka).pause();
                std::thread::sleep(self.lasts());
                held(&fleet.kafka).resume();
                ""
            }
            Self::TopicsAnew => {
                let (which, name) = match dice.below(3) {
                    0 => (&topics::ALL[..1], " batches"),
                    1 => (&topics::ALL[1..], " receipts"),
                    _ => (&topics::ALL[..], " both"),
                };
                let kafka = held(&fleet.kafka);
                topics::delete(&kafka, which);
                std::thread::sleep(self.lasts());
                topics::make(&kafka, which);
                name
            }
            Self::DiskLost => {
                let name = fleet.lose_disk(dice);
                // It closes the log that was lost, and writes one of its own, before the next fault comes.
                std::thread::sleep(self.lasts());
                return format!("{self:?} {name}");
            }
            Self::OffsetsReset => {
                // A group with members is not deleted.
                let mut archivers: Vec<_> = fleet.archivers.iter().map(held).collect();
                for archiver in &mut archivers {
                    archiver.stop();
                }
                topics::reset(&held(&fleet.kafka));
                archivers.iter_mut().for_each(|archiver| archiver.spawn());
                ""
            }
            Self::StoreDown => {
                held(&fleet.server).pause();
                std::thread::sleep(self.lasts());
                held(&fleet.server).resume();
                ""
            }
            Self::StoreRefuses => self.weather(fleet, dice, Fault::Status(503)),
            Self::StoreAnswersLate => self.weather(fleet, dice, Fault::LateAnswer(Duration::from_secs(4))),
            Self::StoreCutAfterSuccess => self.weather(fleet, dice, Fault::CutAfter),
            Self::GatewayBroker => self.cut(&links.gateway_broker, dice),
            Self::ArchiverBroker => self.cut(&links.archiver_broker, dice),
            Self::ArchiverStore => self.cut(&links.archiver_store, dice),
            Self::RegistrarStore => self.cut(&links.registrar_store, dice),
            Self::GatewayProvider => self.cut(&links.gateway_provider, dice),
        };
        format!("{self:?}{how}")
    }

    /// Half of what is asked of the store meets `fault`, or all of it.
    fn weather(self, fleet: &Fleet, dice: &mut Dice, fault: Fault) -> &'static str {
        let all = dice.below(2) == 0;
        for store in &fleet.stores {
            store.mix(vec![(u64::from(!all), Fault::Pass), (1, fault)], dice.next());
        }
        std::thread::sleep(self.lasts());
        fleet.stores.iter().for_each(|store| store.set(Fault::Pass));
        if all { " always" } else { " at times" }
    }

    /// One of the wires breaks, or carries nothing.
    fn cut(self, wires: &[Wire], dice: &mut Dice) -> &'static str {
        let (network, how) =
            if dice.below(2) == 0 { (Network::Broken, " broken") } else { (Network::Silent, " silent") };
        let wire = &wires[dice.below(wires.len() as u64) as usize];
        wire.set(network);
        std::thread::sleep(self.lasts());
        wire.set(Network::Whole);
        how
    }
}
