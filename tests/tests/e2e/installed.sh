# Installs the program on a copy of this machine's system folders, and lets mount(8), /etc/fstab and a systemd user manager
# use it as they do at boot and at login. Run in a mount namespace of its own; nothing outside of it is changed.
# Usage: installed.sh PACKAGING PROGRAM FOLDER
set -eu
packaging=$1 program=$2 folder=$3
fail() { echo "FAILED: $*" >&2; exit 1; }

# The overlay needs a file system of its own for what is written, so that its folders are no overlay themselves.
mkdir -p "$folder/written"
mount -t tmpfs tmpfs "$folder/written"
for name in usr etc; do
    mkdir "$folder/written/$name" "$folder/written/$name.work"
    mount -t overlay overlay "/$name" \
        -o "lowerdir=/$name,upperdir=$folder/written/$name,workdir=$folder/written/$name.work"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system # what systemd looks for to tell that it runs this machine

"$packaging/install" "$program"
unset XDG_STATE_HOME XDG_CONFIG_HOME XDG_CACHE_HOME DBUS_SESSION_BUS_ADDRESS
export HOME="$folder/home"
mkdir -p "$HOME/Pictures" "$folder/srv"
echo 'a picture' >"$HOME/Pictures/a.jpg"

echo '== /etc/fstab'
library=$folder/films
manifold --library "$library" source add "$HOME/Pictures"
echo "$library $folder/srv manifold _netdev,nofail,allow_other 0 0" >>/etc/fstab
mount "$folder/srv"
[ "$(cat "$folder/srv/Pictures/a.jpg")" = 'a picture' ] || fail 'the mount of fstab does not show the file'
findmnt --noheadings --output FSTYPE,OPTIONS "$folder/srv"
findmnt --noheadings --output OPTIONS "$folder/srv" | grep -q 'nosuid,nodev' || fail 'not nosuid,nodev'
umount "$folder/srv"
if findmnt "$folder/srv"; then fail 'still mounted after umount'; fi
mount --all --types manifold
[ "$(cat "$folder/srv/Pictures/a.jpg")" = 'a picture' ] || fail 'mount --all, as at boot, does not show the file'
umount "$folder/srv"

echo '== systemd --user'
export XDG_RUNTIME_DIR="$folder/runtime"
mkdir -m 700 "$XDG_RUNTIME_DIR"
/lib/systemd/systemd --user --log-target=console &
manager=$!
for _ in $(seq 300); do
    [ -S "$XDG_RUNTIME_DIR/systemd/private" ] && systemctl --user list-units >/dev/null 2>&1 && break
    kill -0 "$manager" || fail 'the user manager has ended'
    sleep 0.1
done
manifold source add "$HOME/Pictures"
systemctl --user enable --now manifold@default
[ "$(systemctl --user is-active manifold@default)" = active ] || fail 'the unit is not active once it has started'
systemctl --user show --property=StatusText manifold@default | grep -q "mounted at $HOME/Manifold" || fail 'no word of readiness'
[ "$(cat "$HOME/Manifold/Pictures/a.jpg")" = 'a picture' ] || fail 'ready, but the file is not there'

first=$(systemctl --user show --property=MainPID --value manifold@default)
systemctl --user kill --signal=KILL manifold@default
# Restart=on-failure: it comes back by itself, over the dead mount that it left.
for _ in $(seq 300); do
    now=$(systemctl --user show --property=MainPID --value manifold@default)
    [ "$now" != 0 ] && [ "$now" != "$first" ] && [ "$(systemctl --user is-active manifold@default)" = active ] && break
    sleep 0.1
done
[ "$(cat "$HOME/Manifold/Pictures/a.jpg")" = 'a picture' ] || fail 'the unit did not come back after it was killed'

systemctl --user stop manifold@default
[ "$(systemctl --user is-active manifold@default)" = inactive ] || fail 'the unit did not stop in order'
if findmnt "$HOME/Manifold"; then fail 'still mounted after the unit was stopped'; fi
systemctl --user exit
wait "$manager" || :
echo 'all good'
