//! Named limits on the admin port.

use serde_json::Value;

use super::router::request;
use super::{Answer, Router};

impl Router {
    /// A call on the admin port with the operator's token.
    #[track_caller]
    pub fn limit(&self, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.token());
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        request(self.admin(), method, path, &headers, &text)
    }

    /// Sets a limit and returns when it holds.
    #[track_caller]
    pub fn set_limit(&self, name: &str, body: &Value) -> Answer {
        let answer = self.limit("PUT", &format!("/limits/{name}?wait=active"), body);
        assert!(
            matches!(answer.status, 200 | 201),
            "{answer:?} {}",
            answer.text()
        );
        answer
    }
}
