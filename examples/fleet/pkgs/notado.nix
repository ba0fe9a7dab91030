{
  stdenv,
  glibc,
  openssl,
  postgresql,
}:

stdenv.mkDerivation {
  pname = "notado";
  version = "1.4.0";
  size = 300;
  buildInputs = [ glibc openssl postgresql ];
  meta.description = "Keeps what one has read";
}
