# To be sourced, from the root of a clone, when the release build is there: `faulty` is the folder of
# builds with fault points (`src/base/faults`), which never replace the real binary. Third-party crates
# are the same files under both: linked, not built again.
faulty=${CARGO_TARGET_DIR:-target}/faulty
if [ ! -d "$faulty/release/.fingerprint" ]; then
    from=${CARGO_TARGET_DIR:-target}/release
    mkdir -p "$faulty/release/deps"
    cp -a "$from/build" "$from/.fingerprint" "$faulty/release/"
    rm -rf "$faulty"/release/{.fingerprint,build}/floortape-*
    find "$from/deps" -maxdepth 1 -type f ! -name '*floortape*' \
        -exec ln -f {} "$faulty/release/deps/" \;
fi
# cargo's words…
faulty_cargo() { CARGO_TARGET_DIR=$faulty cargo "$@" --release --locked --features faults; }
