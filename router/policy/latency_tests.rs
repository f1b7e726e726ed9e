//! Averages and sketches against what they stand for.

use proptest::prelude::*;

use super::*;

const SECOND_US: u64 = 1_000_000;

#[test]
fn an_average_rises_quickly_falls_slowly_and_is_forgotten_by_halves() {
    let average = Average::default();
    assert_eq!(average.read_us(0), 0);
    let mut now_us = SECOND_US;
    average.note(5_000, 0, now_us);
    assert_eq!(average.read_us(now_us), 5_000);
    average.note(500_000, 0, now_us);
    assert_eq!(average.read_us(now_us), 8_750, "one long answer is one");
    for _ in 0..4 {
        average.note(500_000, 0, now_us);
    }
    let peak_us = average.read_us(now_us);
    assert!((80_000..150_000).contains(&peak_us), "{peak_us}");
    for _ in 0..8 {
        average.note(5_000, 0, now_us);
    }
    let later_us = average.read_us(now_us);
    assert!(later_us > 20_000 && later_us < peak_us / 2, "{later_us}");
    for halvings in 1..4u32 {
        now_us += 10 * SECOND_US;
        let read_us = average.read_us(now_us);
        let wanted_us = later_us >> halvings;
        assert!(read_us.abs_diff(wanted_us) <= 1 + wanted_us / 500);
    }
    assert_eq!(average.measured_us(), later_us);
    average.forget();
    assert_eq!(average.measured_us(), 0);
}

#[test]
fn a_first_answer_counts_for_twice_the_usual_at_most() {
    let average = Average::default();
    average.note(500_000, 6_000, SECOND_US);
    assert_eq!(average.measured_us(), 12_000);
}

#[test]
fn few_measurements_tell_as_much_as_many() {
    for apart_us in [1_000, SECOND_US, 4 * SECOND_US, 60 * SECOND_US] {
        let average = Average::default();
        for n in 1..=50 {
            average.note(40_000, 0, n * apart_us);
        }
        assert_eq!(average.measured_us(), 40_000, "each {apart_us} us");
    }
    // One that was far slower is not held to it.
    let average = Average::default();
    average.note(800_000, 0, SECOND_US);
    average.note(5_000, 0, 71 * SECOND_US);
    assert!(average.measured_us() < 10_000);
}

#[test]
fn a_wait_only_ever_raises_an_average() {
    let average = Average::default();
    average.note(200_000, 0, 0);
    average.note_at_least(100_000, 10);
    assert_eq!(average.measured_us(), 200_000);
    average.note_at_least(1_000_000, 10);
    assert_eq!(average.measured_us(), 400_000);
}

#[test]
fn a_clock_read_a_little_earlier_elsewhere_decays_nothing() {
    let average = Average::default();
    average.note(8_000, 0, 50 * SECOND_US);
    assert_eq!(average.read_us(50 * SECOND_US - 5_000), 8_000);
}

proptest! {
    #[test]
    fn a_quantile_is_never_short_and_at_most_a_quarter_too_long(
        times in proptest::collection::vec(1u64..60_000_000, 1..400),
        permille in 1u16..=999,
    ) {
        let threads = [Sketch::default(), Sketch::default()];
        for (at, &took_us) in times.iter().enumerate() {
            threads[at % 2].note(took_us);
        }
        let merged = Merged::of(&threads);
        prop_assert_eq!(merged.len(), times.len() as u64);
        let mut sorted = times;
        sorted.sort_unstable();
        let rank = (sorted.len() * usize::from(permille)).div_ceil(1000).max(1);
        let exact_us = sorted[rank - 1];
        let read_us = merged.quantile_us(permille).unwrap();
        prop_assert!(read_us >= exact_us, "{read_us} {exact_us}");
        prop_assert!(read_us <= (exact_us + exact_us / 4).max(64) + 1, "{read_us} {exact_us}");
    }
}

#[test]
fn what_is_read_is_unknown_before_twenty_answers() {
    let sketch = Sketch::default();
    for _ in 0..19 {
        sketch.note(5_000);
    }
    let merged = Merged::of([&sketch]);
    assert_eq!(merged.median_us(), None);
    assert_eq!(merged.learned_us(), 1_000_000);
    assert_eq!(merged.chosen_us(950), 1_000_000);
    assert!(sketch.note(5_000), "the twentieth is read at once");
    let merged = Merged::of([&sketch]);
    assert!(matches!(merged.median_us(), Some(5_000..=6_250)));
    assert_eq!(merged.learned_us(), 100_000);
    for _ in 0..100 {
        sketch.note(80_000);
    }
    let learned_us = Merged::of([&sketch]).learned_us();
    assert!((240_000..=300_000).contains(&learned_us), "{learned_us}");
}

#[test]
fn a_sketch_follows_an_app_that_changes() {
    let sketch = Sketch::default();
    for _ in 0..100_000 {
        sketch.note(5_000);
    }
    for _ in 0..4_000 {
        sketch.note(50_000);
    }
    let median_us = Merged::of([&sketch]).median_us();
    assert!(matches!(median_us, Some(50_000..=62_500)), "{median_us:?}");
}
