//! How often the registration API was asked, by status, for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// The statuses of HTTP: 100 to 599.
const FIRST: usize = 100;
const STATUSES: usize = 500;

/// Counts by status. Cheap to clone; all clones count together.
///
/// The API's router counts with
/// `middleware::from_fn_with_state(counts, api_requests::count)` as its
/// outermost layer.
#[derive(Clone, Debug)]
pub struct ApiRequests(Arc<[AtomicU64]>);

impl Default for ApiRequests {
    fn default() -> Self {
        ApiRequests((0..STATUSES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl ApiRequests {
    /// Counts one answer.
    pub fn answered(&self, status: u16) {
        if let Some(cell) = usize::from(status)
            .checked_sub(FIRST)
            .and_then(|at| self.0.get(at))
        {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// Statuses that were answered, with how often.
    pub fn counts(&self) -> Vec<(u16, u64)> {
        let cells = (FIRST as u16..).zip(self.0.iter());
        let counted = cells.map(|(status, cell)| (status, cell.load(Relaxed)));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

/// The layer that counts.
pub async fn count(State(counts): State<ApiRequests>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    counts.answered(response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_answered_is_listed() {
        let counts = ApiRequests::default();
        for status in [200, 201, 200, 599, 600, 99] {
            counts.clone().answered(status);
        }
        assert_eq!(counts.counts(), [(200, 2), (201, 1), (599, 1)]);
    }
}
