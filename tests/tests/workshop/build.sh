# A source tree is unpacked and built: $TREE is a tar of the C sources of BLAKE3, with a makefile and a program that hashes.
# $TAR says how it is unpacked, since not all sources keep modes and times.
tar -xf "$TREE" --no-same-owner ${TAR:-}
cd c
build() { make -s -j2 -f Makefile.testing all CC=cc CFLAGS='-O1 -fPIE -fvisibility=hidden -DBLAKE3_TESTING' EXTRAFLAGS=; }
build
cp blake3 "$ASIDE/built"; chmod +x "$ASIDE/built"
printf abc | "$ASIDE/built" >"$ASIDE/hash" 2>/dev/null
grep -q '^6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85' "$ASIDE/hash"
echo '// changed' >>blake3_sse2.c
build
cmp blake3 "$ASIDE/built"
[ -z "${BENEATH:-}" ] || cmp "$BENEATH/c/blake3" "$ASIDE/built"
rm -- *.o
