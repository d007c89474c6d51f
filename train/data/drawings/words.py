"""What is written in the pictures: words of several scripts, numbers, lines of code.

About every fourth word is held out of training. Hebrew is stored as it is read, and turned round to be drawn from
the left.
"""

from __future__ import annotations

from .kit import Kit

LATIN = """the of and water light house morning street garden window bridge river station market summer
winter open closed exit entrance museum library coffee bread fresh today tomorrow price total amount order
number page chapter section figure table result measure value paper letter print press image picture
camera focus edge line sharp clear north south east west platform ticket train airport hotel kitchen
danger warning private parking school hospital quick brown fox jumps over lazy dog quartz jazz vex wizard
sphinx judge black vow pack my box five dozen liquor jugs""".split()
ACCENTED = """Straße Größe Übung für Öffnung schön Käse Fußgänger Äpfel Bücher garçon élève château
français où être déjà Noël façade niño señor mañana jalapeño corazón está qué ação coração não informação
pão città perché virtù løpe smørbrød århus ærlig żółw gęś łódź świat źródło ćma příliš žluťoučký kůň úpěl
ďábelské ódy őszi űrhajó çığ şeker ğ ısı İstanbul""".split()
CYRILLIC = """свет вода город улица дом мост река утро вечер книга хлеб выход вход касса поезд билет рынок
площадь музей школа аптека больница внимание осторожно открыто закрыто цена итого съешь ещё этих мягких
французских булок выпей чаю широкая электрификация южных губерний щёлочь жюри объём""".split()
GREEK = """φως νερό σπίτι δρόμος γέφυρα ποτάμι πρωί βράδυ βιβλίο ψωμί έξοδος είσοδος τρένο εισιτήριο αγορά
πλατεία μουσείο σχολείο φαρμακείο προσοχή ανοικτό κλειστό τιμή σύνολο ξεσκεπάζω την ψυχοφθόρα βδελυγμία
θάλασσα χώρα""".split()
HEBREW = """אור מים בית רחוב גשר נהר בוקר ערב ספר לחם יציאה כניסה רכבת כרטיס שוק כיכר מוזיאון מדרסה זהירות
פתוח סגור מחיר דג סקרן שט בים מאוכזב ולפתע מצא חברה עיר גן חלון תחנה שלום עץ קפה טוב""".split()
THAI = """น้ำ แสง บ้าน ถนน สะพาน แม่น้ำ เช้า เย็น หนังสือ ขนมปัง ทางออก ทางเข้า รถไฟ ตั๋ว ตลาด จัตุรัส
โรงเรียน ร้านยา ระวัง เปิด ปิด ราคา รวม ข้าว ภาษาไทย กรุงเทพ ดอกไม้ ท้องฟ้า ทะเล ภูเขา""".split()
JAPANESE = """光 水 家 道 橋 川 朝 夜 本 出口 入口 電車 切符 市場 広場 学校 薬局 注意 営業中 価格 合計
東京 大阪 写真 画像 線 図書館 駅 ひかり みず あさ まち さくら コーヒー パン カメラ ホテル データ テスト
いろはにほへと ちりぬるを 安全第一 止まれ 新聞 料金 手紙""".split()
CHINESE = """光 水 家 道 早晨 夜晚 本 出口 入口 火 市 注意 安全 中国 北京 上海 大小 天地 人民 日月 山川
木林 花草 风雨 电话 文字 白色 小心 公园 今天 明天 上下 左右 一二三四五 六七八九十 时间 地方 学生 汉字 新年
长城""".split()
WORDS = {
    "latin": LATIN,
    "accented": [*ACCENTED, *LATIN[::3]],
    "cyrillic": CYRILLIC,
    "greek": GREEK,
    "hebrew": HEBREW,
    "thai": THAI,
    "japanese": JAPANESE,
    "chinese": CHINESE,
}
SAMPLES = {
    script: "".join(sorted(set("".join(word + word.upper() + word.capitalize() for word in words) + "0123456789:.,%-")))
    for script, words in WORDS.items()
}
"""Letters that a font must have to write a script."""
SPACED = ("latin", "accented", "cyrillic", "greek", "hebrew", "thai")
"""Scripts with capitals or words set apart; the others are set without spaces."""
CODE = r"""for index in range(count): | if (value > 0.5) { | return a[i] * b[j] + c; |
def resize(image, factor): | } | import numpy as np | # TODO: check the edges | let mut total = 0u32; |
printf("%d: %s\n", n, name); | else: | while (!queue.empty()) { | const size = width * height; |
x = [0, 1, 2, 3, 4] | assert error < 1e-6 | break; | <div class="row" id="main"> |
SELECT name, price FROM items; | git commit -m "Fix layout" | y += 0.25 * dy; | struct Point { float x, y; }; |
try: | raise ValueError(path) | export PATH=/usr/bin:$HOME | 0x7f3a 0x00ff 0b1011""".replace("\n", " ").split(" | ")
KEYWORDS = """for in if return def import let mut else while const assert break class
SELECT FROM struct try raise export""".split()


def vocabulary(script: str, held_out: bool) -> list[str]:
    """The words of a script that training may write, or the others."""
    return [word for word in WORDS[script] if (sum(map(ord, word)) % 4 == 3) == held_out]


def word(kit: Kit, script: str) -> str:
    """One word, with capitals at times; in a tenth of the draws a number, a price, a date or a time instead."""
    if kit.chance(0.1):
        return number(kit)
    text = kit.pick(vocabulary(script, kit.held_out))
    if script == "hebrew":
        return text[::-1]
    case = kit.uniform(0, 1)
    return text.capitalize() if case < 0.2 else text.upper() if case < 0.3 and script != "thai" else text


def number(kit: Kit) -> str:
    """Digits as they stand in texts."""
    a, b = kit.integer(0, 99), kit.integer(1, 59)
    forms = (
        f"{a}",
        f"{a * b}",
        f"{a}.{b:02}",
        f"{a % 24}:{b:02}",
        f"{a}%",
        f"{1900 + a}-{1 + b % 12:02}-{1 + b % 28:02}",
    )
    return kit.pick(forms)


def phrase(kit: Kit, script: str, count: int) -> str:
    """`count` words, spaced as the script is, with commas and stops where it has them."""
    if script not in SPACED:
        return "".join(kit.pick(vocabulary(script, kit.held_out)) for _ in range(count))
    words = [word(kit, script) for _ in range(count)]
    marks = [kit.pick(",.;:!?") if kit.chance(0.12) and script != "thai" else "" for _ in words]
    return " ".join(w + mark for w, mark in zip(words, marks, strict=True))
