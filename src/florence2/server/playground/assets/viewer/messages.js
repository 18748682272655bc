/** The viewer's texts in both languages, for the table in ``i18n.js``. Names in braces are filled in. */
export const messages = {
  en: {
    "viewer.tools": "Zoom",
    "viewer.zoomIn": "Zoom in",
    "viewer.zoomOut": "Zoom out",
    "viewer.fit": "Show the whole picture",
    "viewer.empty": "No picture",
    "viewer.picture": "Picture {name}, {width} × {height} pixels",
    "viewer.help": "Plus and minus zoom, 0 shows the whole picture, arrow keys move it. Tab goes on to what was found.",
    "viewer.helpObjects": "Arrow keys go through the objects. Enter chooses one.",
    "viewer.helpRegion": "Enter begins a region. Arrow keys move it, with Shift they change its size.",
    "viewer.objects": "Objects",
    "viewer.unnamed": "object",
    "viewer.box": "box {x1} {y1} {x2} {y2}",
    "viewer.quad": "text box {x1} {y1} {x2} {y2}",
    "viewer.polygons": "outline within {x1} {y1} {x2} {y2}",
    "viewer.region": "Region {x1} {y1} {x2} {y2}",
    "viewer.unreadable": "The browser can't show this picture. Choose a JPEG, PNG, WebP, GIF, BMP or AVIF file.",
  },
  ko: {
    "viewer.tools": "확대/축소",
    "viewer.zoomIn": "확대",
    "viewer.zoomOut": "축소",
    "viewer.fit": "이미지 전체 보기",
    "viewer.empty": "이미지 없음",
    "viewer.picture": "이미지 {name}, {width} × {height} 픽셀",
    "viewer.help": "더하기와 빼기 키로 확대·축소하고, 0 키로 전체를 보고, 화살표 키로 이동합니다. Tab 키를 누르면 찾은 객체로 넘어갑니다.",
    "viewer.helpObjects": "화살표 키로 객체 사이를 이동하고 Enter 키로 선택합니다.",
    "viewer.helpRegion": "Enter 키로 영역을 만듭니다. 화살표 키로 옮기고, Shift와 함께 누르면 크기가 바뀝니다.",
    "viewer.objects": "객체",
    "viewer.unnamed": "객체",
    "viewer.box": "상자 {x1} {y1} {x2} {y2}",
    "viewer.quad": "글자 상자 {x1} {y1} {x2} {y2}",
    "viewer.polygons": "윤곽, 범위 {x1} {y1} {x2} {y2}",
    "viewer.region": "영역 {x1} {y1} {x2} {y2}",
    "viewer.unreadable": "브라우저가 이 이미지를 표시할 수 없습니다. JPEG, PNG, WebP, GIF, BMP 또는 AVIF 파일을 선택하세요.",
  },
};

/** A text with its names in braces filled in; English where the table lacks it. */
export function filled(table, key, values = {}) {
  const text = table?.[key] ?? messages.en[key];
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
