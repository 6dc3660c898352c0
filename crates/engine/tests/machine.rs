//! The machine is measured with the code that models run on.
#![allow(clippy::unwrap_used)]

use hearth_engine::machine::measure;

#[test]
fn a_prompt_is_computed_faster_than_its_tokens_one_by_one() {
    let machine = measure(Some(1), true).unwrap();
    println!("{machine:?}");
    assert!(!machine.device.is_empty() && !machine.gpu && machine.memory > 1 << 28);
    // A weight of Q4_K takes 4.5 bits, and each is multiplied once for a token.
    let one_by_one = machine.weight_bytes_per_second * 8.0 / 4.5 * 2.0;
    assert!(machine.operations_per_second > one_by_one, "{machine:?}");
}
