//! Asks the server how it is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::link::Link;
use super::{call, topology};
use crate::bridge::Bridge;
use crate::error::{ErrorKind, Result, failure_text};
use crate::status::{Health, Status};

pub(super) fn of_publisher(bridge: &Bridge, link: Arc<Link>, name: &str, deadline: Duration) -> Health {
    asked(bridge, name, deadline, async move {
        let connection = link.connection().await?;
        topology::look(&connection, &link.settings.names.exchange, &link.place).await?;
        Ok(Health::new(Status::Up, Vec::new()))
    })
}

pub(super) fn of_subscription(
    bridge: &Bridge,
    link: Arc<Link>,
    queue: String,
    name: &str,
    deadline: Duration,
) -> Health {
    asked(bridge, name, deadline, async move {
        let connection = link.connection().await?;
        let holds = topology::backlog(&connection, &queue, &link.place).await?;
        let mut details = vec![format!("{} messages wait in the queue {queue}", holds.waiting)];
        if holds.dead > 0 {
            details.push(format!("{} dead letters are kept in {queue}.dead", holds.dead));
        }
        Ok(Health::new(Status::Up, details))
    })
}

fn asked(
    bridge: &Bridge,
    name: &str,
    deadline: Duration,
    question: impl Future<Output = Result<Health>> + Send + 'static,
) -> Health {
    // A moment before the caller's, who is answered in time.
    call(bridge, deadline.mul_f64(0.9), ErrorKind::Deadline, name, question)
        .unwrap_or_else(|error| Health::new(Status::Down, vec![failure_text(&error)]))
}
