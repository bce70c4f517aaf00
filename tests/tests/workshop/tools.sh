# Small tools that write in ways of their own.
head -c 2000000 /dev/urandom >"$ASIDE/bytes"
same() { cmp "$1" "$2" && cmp "$1" "$BENEATH/$2"; }

cp --reflink=auto "$ASIDE/bytes" copied; same "$ASIDE/bytes" copied
cp --reflink=auto copied second; same "$ASIDE/bytes" second
dd if="$ASIDE/bytes" of=direct bs=64k oflag=direct conv=fsync status=none; same "$ASIDE/bytes" direct
dd if=direct of="$ASIDE/read" bs=64k iflag=direct status=none; cmp "$ASIDE/bytes" "$ASIDE/read"

cp "$ASIDE/bytes" "$ASIDE/patched"
printf patch | dd of="$ASIDE/patched" bs=1 seek=1000 conv=notrunc status=none
printf patch | dd of=copied bs=1 seek=1000 conv=notrunc status=none
printf more | dd of="$ASIDE/patched" oflag=append conv=notrunc status=none
printf more | dd of=copied oflag=append conv=notrunc status=none
same "$ASIDE/patched" copied
for worker in 1 2 3; do (for line in $(seq 1 200); do echo "$worker $line" >>log; done) & done; wait
[ "$(wc -l <log)" = 600 ] && [ "$(sort -u log | wc -l)" = 600 ]

mkdir -p from/deep to; echo text >from/deep/file
exec 3>>from/deep/file
mv from/deep to/moved; echo more >&3; exec 3>&-
[ "$(cat to/moved/file)" = "text
more" ] && [ ! -e from/deep ] && [ -d "$BENEATH/to/moved" ]
mv -T to/moved from/back; mv from/back/file .; rmdir from/back
mkdir full; touch full/x; ! rmdir full 2>/dev/null; rm -r full
touch f; chmod 640 f; touch -d '2020-01-01 00:00:00.5' f; truncate -s 12345 f
[ "$(stat -c '%a %s' f)" = '640 12345' ] && [ "$(stat -c %y "$BENEATH/f")" = "$(stat -c %y f)" ]
ln f g; [ "$(stat -c %h f)" = 2 ] && [ "$(stat -c %h g)" = 2 ]; rm f; [ "$(stat -c %h g)" = 1 ]
sed -i s/text/words/ file; grep -q words "$BENEATH/file"
fallocate -l 1M room; fallocate -p -o 4096 -l 65536 room; [ "$(stat -c %s room)" = 1048576 ]
install -m 750 "$ASIDE/bytes" installed; same "$ASIDE/bytes" installed; [ "$(stat -c %a installed)" = 750 ]
cat >program <<'END'
#!/bin/sh
echo ran
END
chmod +x program; [ "$(./program)" = ran ]
mktemp -p . >/dev/null; mkdir -p a/b/c/d/e/f/g; find a -depth -delete; [ ! -e "$BENEATH/a" ]
[ "$(df --output=avail . | tail -1)" -gt 0 ]
(cd "$(mktemp -d -p .)" && pwd -P && [ "$(pwd -P)" = "$(/bin/pwd)" ] && rmdir "$PWD") >/dev/null
