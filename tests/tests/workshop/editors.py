# Saving as editors do it: a new file takes the place of the old one, and whoever reads meanwhile always finds one of them.
import os, threading

def save(text):
    with open("document.tmp", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename("document.tmp", "document")
    directory = os.open(".", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)

save("0" * 5000)
stop, troubles = threading.Event(), []
def read():
    while not stop.is_set():
        try:
            with open("document") as file:
                text = file.read()
            if len(text) != 5000 or len(set(text)) != 1:
                troubles.append(f"{len(text)} bytes of {set(text)}")
        except OSError as error:
            troubles.append(repr(error))
readers = [threading.Thread(target=read) for _ in range(3)]
for reader in readers:
    reader.start()
for round in range(150):
    save(str(round % 10) * 5000)
stop.set()
for reader in readers:
    reader.join()
assert not troubles, troubles[:3]
with open(os.path.join(os.environ["BENEATH"], "document")) as file:
    assert file.read() == "9" * 5000
# With a backup that is a second name, and with a backup that is the old file itself.
os.link("document", "document~")
save("x" * 5000)
assert open("document~").read() == "9" * 5000 and os.stat("document~").st_nlink == 1
os.rename("document", "document.bak")
with open("document", "w") as file:
    file.write("y")
os.unlink("document.bak")
assert sorted(os.listdir(os.environ["BENEATH"])) == ["document", "document~"]
