//! The program `forgetful-disk` of the tests: see the module `forgetful`.

fn main() {
    revfs_tests::forgetful::serve();
}
