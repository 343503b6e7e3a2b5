"""The templates of a server: nginx reads its own, and what was found missing once stays in it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scripts import ROOT
from wbc_hf.web.access import MAX_UPLOAD

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
TEMPLATE = (ROOT / "deploy/nginx.conf").read_text(encoding="utf-8")


def test_every_way_to_sign_in_is_limited():
    """The page answers to both; `location = /login` let the second through."""
    pattern = re.search(r"location ~ (\S+) \{\s+limit_req ", TEMPLATE)[1]
    assert all(re.search(pattern, path) for path in ("/login", "/login/"))
    assert not re.search(pattern, "/login_check")


def test_no_server_logs_addresses_of_requests():
    servers = TEMPLATE.split("\nserver {")[1:]
    assert len(servers) == 2
    for server in servers:
        assert re.search(r"access_log (off|\S+ leucocytes);", server)
        assert "error_log /var/log/nginx/leucocytes-error.log crit;" in server
    form = re.search(r"log_format leucocytes '(.+)';", TEMPLATE)[1]
    assert not re.search(r"\$(request|request_uri|uri|args|http_referer)\b", form)


def test_tabs_share_a_connection_and_refusals_arrive():
    assert "listen 443 ssl http2;" in TEMPLATE
    assert 'proxy_set_header Connection "";' in TEMPLATE
    assert f"client_max_body_size {MAX_UPLOAD // 2**30}g;" in TEMPLATE


@pytest.mark.skipif(NGINX is None or shutil.which("openssl") is None, reason="no nginx or no openssl on this machine")
def test_nginx_accepts_the_template(tmp_path: Path):
    key, certificate = tmp_path / "key", tmp_path / "pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab.example.org"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    text = TEMPLATE.replace("/etc/ssl/private/lab.example.org.key", str(key))
    text = text.replace("/etc/ssl/lab.example.org.pem", str(certificate)).replace("/var/log/nginx", str(tmp_path))
    temporary = "".join(
        f"{name}_temp_path {tmp_path};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Ports that need no rights.
    text = re.sub(r"(listen (?:\[::\]:)?)(80|443)", lambda found: f"{found[1]}1{found[2]:0>4}", text)
    main = f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} http {{ {temporary} {text} }}"
    (tmp_path / "nginx.conf").write_text(main)
    done = subprocess.run([NGINX, "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
