"""Kamailio as a proxy before the SRS: UDP from clients on one side, mutual TLS to the SRS on the other, with
Record-Route, so that every request of a dialog passes through it either way."""

import pathlib
import shutil
import subprocess
import time

CONFIG = """#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=1
auto_aliases=no
enable_tls=yes
listen=udp:{host}:{udp}
listen=tls:{host}:{tls}
tcp_connection_lifetime=600
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "pv.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "tls.so"
modparam("tls", "config", "{folder}/tls.cfg")
modparam("tm", "fr_timer", 10000)

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    record_route();
    $du = "sip:{srs}:{srs_tls};transport=tls";
    t_relay();
    exit;
}}
"""

# One for what it accepts, one for what it opens: alike.
TLS = """[{side}:default]
method = TLSv1.2+
private_key = {key}
certificate = {cert}
ca_list = {ca}
verify_certificate = yes
require_certificate = yes
"""


class Kamailio:
    """A running proxy; `cert` and `key` are its own, `ca` is whose the SRS's must be of."""

    def __init__(self, folder, host, ports, srs, cert, key, ca):
        folder = pathlib.Path(folder)
        folder.mkdir()
        udp, tls = ports
        sides = [TLS.format(side=side, cert=cert, key=key, ca=ca) for side in ("server", "client")]
        (folder / "tls.cfg").write_text("\n".join(sides))
        text = CONFIG.format(host=host, udp=udp, tls=tls, srs=srs[0], srs_tls=srs[1], folder=folder)
        (folder / "kamailio.cfg").write_text(text)
        self.log = open(folder / "kamailio.log", "wb")
        words = [shutil.which("kamailio") or "/usr/sbin/kamailio", "-DD", "-f",
                 str(folder / "kamailio.cfg"), "-Y", str(folder), "-m", "32", "-M", "4"]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log)
        time.sleep(1.5)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.log.close()
