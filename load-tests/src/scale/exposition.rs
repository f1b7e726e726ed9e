//! As much of Prometheus text as the scenarios read: single values and the
//! quantiles of a histogram's growth.

use std::collections::BTreeMap;

/// The value of a series by its whole name, labels included.
pub fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(series)?;
        rest.strip_prefix(' ')?.trim().parse().ok()
    })
}

/// The counts of a histogram's buckets by their upper bounds, of all its series together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(BTreeMap<Bound, f64>);

/// An upper bound; compared as a number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Buckets {
    /// Of the histogram `name`; `None` if the text has none.
    pub fn of(text: &str, name: &str) -> Option<Self> {
        let prefix = format!("{name}_bucket{{");
        let mut buckets = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(&prefix) else {
                continue;
            };
            let (labels, count) = rest.rsplit_once("} ")?;
            let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().ok()?
            };
            let count: f64 = count.trim().parse().ok()?;
            *buckets.entry(Bound(bound)).or_default() += count;
        }
        (!buckets.is_empty()).then_some(Self(buckets))
    }

    /// What came since; a histogram that began anew counts whole.
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = self.0.iter().map(|(bound, count)| {
            let before = earlier.0.get(bound).copied().unwrap_or(0.0);
            (
                *bound,
                if before > *count {
                    *count
                } else {
                    count - before
                },
            )
        });
        Self(grown.collect())
    }

    /// Observations in all.
    pub fn count(&self) -> f64 {
        self.0.values().last().copied().unwrap_or(0.0)
    }

    /// As `histogram_quantile` does it: evenly within its bucket. NaN of nothing.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.count();
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && *count > below {
                if bound.0.is_infinite() {
                    return lower;
                }
                return lower + (bound.0 - lower) * (rank - below) / (count - below);
            }
            (lower, below) = (bound.0, *count);
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE p_seconds histogram
p_seconds_bucket{le=\"0.01\"} 50
p_seconds_bucket{le=\"0.1\"} 99
p_seconds_bucket{le=\"+Inf\"} 100
p_seconds_sum 3
p_seconds_count 100
p_edges 2
p_edges_missing 0
";

    #[test]
    fn values_by_their_whole_name() {
        assert_eq!(value(TEXT, "p_edges"), Some(2.0));
        assert_eq!(value(TEXT, "p_edg"), None);
    }

    #[test]
    fn quantiles_lie_evenly_in_their_bucket() {
        let buckets = Buckets::of(TEXT, "p_seconds").unwrap();
        assert!((buckets.quantile(0.25) - 0.005).abs() < 1e-9);
        assert!((buckets.quantile(0.99) - 0.1).abs() < 1e-9);
        assert!((buckets.quantile(0.999) - 0.1).abs() < 1e-9);
        assert!(Buckets::default().quantile(0.5).is_nan());
        assert_eq!(Buckets::of(TEXT, "p_other"), None);
    }

    #[test]
    fn only_what_came_since_counts() {
        let before = Buckets::of(TEXT, "p_seconds").unwrap();
        let later = TEXT.replace("} 99", "} 199").replace("} 100", "} 200");
        let since = Buckets::of(&later, "p_seconds").unwrap().since(&before);
        assert!((since.count() - 100.0).abs() < 1e-9);
        assert!((since.quantile(0.5) - 0.055).abs() < 1e-9);
    }
}
