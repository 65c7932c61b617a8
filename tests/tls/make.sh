#!/bin/sh
# Makes the certificates that tests/it/reach.rs uses: an authority, a server on this machine, a client. They protect
# nothing; the keys are public. Run it here to renew them.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
        -subj "/CN=reelay test authority" -keyout "$work/ca.key" -out ca.pem \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
}

signed() {
    name=$1 extensions=$2
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj "/CN=reelay test $name" -keyout "$name.key" -out "$work/$name.csr"
    printf '%s\n' "$extensions" > "$work/$name.ext"
    openssl x509 -req -in "$work/$name.csr" -CA ca.pem -CAkey "$work/ca.key" -CAcreateserial \
        -CAserial "$work/serial" -days 36500 -extfile "$work/$name.ext" -out "$name.pem"
}

authority
signed server "subjectAltName=IP:127.0.0.1,DNS:localhost
extendedKeyUsage=serverAuth"
signed client "extendedKeyUsage=clientAuth"
chmod 600 ./*.key
