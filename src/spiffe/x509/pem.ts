/** `der` as text (RFC 7468). */
export function toPem(der: Uint8Array, label: 'CERTIFICATE' | 'X509 CRL' = 'CERTIFICATE'): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** The DER of each certificate in a PEM text (RFC 7468), undefined for one that is not base64. What stands between them is passed over. */
export function fromPem(text: string): (Uint8Array | undefined)[] {
  return [...text.matchAll(/-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----/g)].map(([, body = '']) => {
    const base64 = body.replaceAll(/\s/g, '');
    const der = Buffer.from(base64, 'base64');
    return der.toString('base64') === base64 ? der : undefined;
  });
}
